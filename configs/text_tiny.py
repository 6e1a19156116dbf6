"""Any small text: half a million parameters besides those of the vocabulary, a minute of training on two CPU cores.

Data: any prepared folder, from one line to tens of megabytes. The model soon memorizes a small text, and the
validation loss shows when. The book "Build a Large Language Model (From Scratch)" begins with such a text:

  python -m gptjax.prepare --input=the-verdict.txt --output=data/verdict
  python -m gptjax.train --config=configs/text_tiny.py --config.data.path=data/verdict --workdir=runs/verdict \\
    --config.training.duration='80 steps'

300 steps of 1,024 tokens are 0.3 M tokens. A text of 20 kB (8,000 tokens) is memorized long before that: 80 steps,
ten passes, are enough. A text of 1 MB needs more: --config.training.duration='2000 steps'. Warm-up and decay scale with
the duration.
"""

from gptjax.config import default


def get_config():
    config = default()

    config.model.num_layers = 3
    config.model.width = 128
    config.model.num_heads = 2
    config.model.feedforward = "relu2"
    config.model.qk_norm = True
    config.model.initialization = "zero"
    config.model.dropout = 0.1  # small texts are read many times

    config.data.sequence_length = 128

    config.optimizer.name = "muon"
    config.optimizer.learning_rate = 3e-3
    config.optimizer.muon_learning_rate = 0.01
    config.schedule.name = "wsd"
    config.schedule.warmup = "5%"
    config.schedule.decay = "40%"
    config.schedule.final_fraction = 0.0

    config.training.duration = "300 steps"
    config.training.batch_size = 8

    config.checkpoint.every = "50 steps"  # at every evaluation, so that the best checkpoint is kept
    config.evaluation.every = "50 steps"
    config.evaluation.sample_every = "100 steps"
    config.evaluation.sample_prompt = ""  # start a new document
    config.evaluation.sample_tokens = 60
    return config
