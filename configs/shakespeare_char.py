"""Character-level Shakespeare with nanoGPT's two settings: --config=configs/shakespeare_char.py:cpu | gpu

Same model, data split, batch, steps and schedule as nanoGPT's README (validation loss 1.88 with `cpu`, 1.4697 with
`gpu`), so that the numbers can be laid side by side.

Data: tinyshakespeare, one file of 1,115,394 bytes (md5 6fb458f1232090904fb40fe944165e91), in nanoGPT's and char-rnn's
repositories; its first 90 % are for training, so the split is by position, not by document:

  python -m gptjax.prepare --input=input.txt --output=data/shakespeare_char --tokenizer=char \\
    --split_by=tail --validation_fraction=0.1
"""

from gptjax.config import ConfigError, default


def get_config(arg: str = "cpu"):
    if arg not in ("cpu", "gpu"):
        raise ConfigError(f"configs/shakespeare_char.py:{arg}: expected one of cpu, gpu")
    config = default()

    config.model.feedforward = "gelu"
    config.model.norm = "layernorm"
    config.model.position = "learned"

    config.data.path = "data/shakespeare_char"

    config.optimizer.learning_rate = 1e-3
    config.optimizer.beta2 = 0.99
    config.schedule.warmup = "100 steps"
    config.schedule.final_fraction = 0.1

    if arg == "cpu":  # 0.8 M parameters, 1.5 M tokens
        config.model.num_layers = 4
        config.model.width = 128
        config.model.num_heads = 4
        config.data.sequence_length = 64
        config.training.batch_size = 12
        config.training.duration = "2000 steps"
    else:  # 10.6 M parameters, 82 M tokens
        config.model.num_layers = 6
        config.model.width = 384
        config.model.num_heads = 6
        config.model.dropout = 0.2
        config.data.sequence_length = 256
        config.training.batch_size = 64
        config.training.duration = "5000 steps"

    config.evaluation.batches = 0
    config.evaluation.sample_every = "1000 steps"
    return config
