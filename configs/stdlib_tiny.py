"""The demo: a small decoder learns to write Python from the standard library's source, in minutes on two CPU cores.

Data (built from the running Python, nothing is downloaded):

  python -m gptjax.prepare --input=python-stdlib --output=data/stdlib --vocab_size=2048
"""

from gptjax.config import default


def get_config():
    config = default()

    config.model.num_layers = 4
    config.model.width = 128
    config.model.num_heads = 2
    config.model.feedforward = "relu2"
    config.model.qk_norm = True
    config.model.initialization = "zero"

    config.data.path = "data/stdlib"
    config.data.sequence_length = 128

    config.optimizer.name = "muon"
    config.optimizer.learning_rate = 4e-3
    config.schedule.name = "wsd"
    config.schedule.warmup = "2.5%"
    config.schedule.decay = "40%"
    config.schedule.final_fraction = 0.0

    config.training.duration = "800 steps"
    config.training.batch_size = 16

    config.checkpoint.every = "200 steps"
    config.evaluation.every = "100 steps"
    config.evaluation.tokens = 40_960
    config.evaluation.sample_every = "400 steps"
    config.evaluation.sample_prompt = "def "
    return config
