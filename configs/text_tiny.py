"""Any small text: a decoder of half a million parameters and the vocabulary, trained within a minute on two CPU cores.

Data: any prepared folder, from one line to some tens of megabytes; where it is small, the model soon knows it by heart,
and validation loss says when. The book "Build a Large Language Model (From Scratch)" begins with such a text:

  python -m gptjax.prepare --input=the-verdict.txt --output=data/verdict
  python -m gptjax.train --config=configs/text_tiny.py --config.data.path=data/verdict --workdir=runs/verdict \\
    --config.training.duration='80 steps'

300 steps of 1,024 tokens are 0.3 M tokens. 20 kB of text, 8,000 tokens, are known by heart long before: 80 steps, ten
passes, are enough. 1 MB deserves more: --config.training.duration='2000 steps'. Warm-up and decay follow.
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

    config.checkpoint.every = "50 steps"  # as often as it is evaluated, so that the best is kept
    config.evaluation.every = "50 steps"
    config.evaluation.sample_every = "100 steps"
    config.evaluation.sample_prompt = ""  # a document from its beginning
    config.evaluation.sample_tokens = 60
    return config
