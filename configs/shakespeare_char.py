"""Character-level Shakespeare: --config=configs/shakespeare_char.py:cpu | cpu_same_steps | cpu_same_time | gpu

`cpu` and `gpu` are nanoGPT's two settings: same model, batch, steps and schedule as in its README (validation loss
1.88 and 1.4697), so that the results can be compared. `cpu_same_steps` keeps the sizes, batch and steps of `cpu` and
changes architecture and optimizer; `cpu_same_time` changes anything but the training time. They are measured in
experiments/quality.

Data: tinyshakespeare, one file of 1,115,394 bytes (md5 6fb458f1232090904fb40fe944165e91), in nanoGPT's and char-rnn's
repositories. Its first 90 % are for training, so it is split by position, not by document:

  python -m gptjax.prepare --input=input.txt --output=data/shakespeare_char --tokenizer=char \\
    --split_by=tail --validation_fraction=0.1
"""

from gptjax.config import ConfigError, default, suggestion

SETTINGS = ("cpu", "cpu_same_steps", "cpu_same_time", "gpu")


def get_config(arg: str = "cpu"):
    if arg not in SETTINGS:
        known = ", ".join(SETTINGS)
        raise ConfigError(f"configs/shakespeare_char.py:{arg}: expected one of {known}{suggestion(arg, SETTINGS)}")
    config = default()
    config.data.path = "data/shakespeare_char"
    config.evaluation.tokens = 0  # the whole split
    config.evaluation.sample_every = "1000 steps"

    # nanoGPT's recipe
    config.model.feedforward = "gelu"
    config.model.norm = "layernorm"
    config.model.position = "learned"
    config.optimizer.learning_rate = 1e-3
    config.optimizer.beta2 = 0.99
    config.schedule.warmup = "5%"  # 100 of 2,000 steps
    config.schedule.final_fraction = 0.1

    if arg == "gpu":  # 10.6 M parameters, 82 M tokens
        config.model.num_layers = 6
        config.model.width = 384
        config.model.num_heads = 6
        config.model.dropout = 0.2
        config.model.attention_dropout = 0.2
        config.data.sequence_length = 256
        config.training.batch_size = 64
        config.training.duration = "5000 steps"
        config.schedule.warmup = "2%"  # again 100 steps
        return config

    config.model.num_layers = 4  # 0.8 M parameters, 1.5 M tokens
    config.model.width = 128
    config.model.num_heads = 4
    config.data.sequence_length = 64
    config.training.batch_size = 12
    config.training.duration = "2000 steps"
    if arg == "cpu":
        return config

    # Improvements since GPT-2, with the same number of parameters.
    config.model.feedforward = "relu2"
    config.model.norm = "rmsnorm"
    config.model.position = "rope"
    config.model.qk_norm = True
    config.model.initialization = "zero"
    config.optimizer.name = "muon"
    config.optimizer.learning_rate = 3e-3
    config.optimizer.muon_learning_rate = 0.02
    config.schedule.name = "linear"
    config.schedule.final_fraction = 0.0
    if arg == "cpu_same_steps":
        return config

    # A smaller model sees more text in the same time, in longer rows: 0.34 M parameters, 1.8 M tokens.
    config.model.num_layers = 3
    config.model.width = 96
    config.model.num_heads = 3
    config.data.sequence_length = 128
    config.training.batch_size = 16
    config.training.duration = "900 steps"
    config.schedule.warmup = "5.5%"
    return config
