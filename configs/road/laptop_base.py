"""The base model of configs/road/laptop.py: 2.6 M parameters on 1.6 M tokens, some minutes on two CPU cores.

4 layers x 12 x 192² = 1.8 M parameters, and 4,096 x 192 = 0.8 M of the vocabulary. 800 steps of 8 x 256 tokens are
1.6 M tokens, nearly half of the 3.6 M of the documentation: 6 x 2.6e6 x 1.6e6 = 2.5e13 FLOPs. The shape is that of
Qwen3, so that transformers, llama.cpp and others can load the exported model. More steps make a better model.

laptop_base.py:smoke is the same at a size that takes seconds.
"""

from gptjax.config import ConfigError, default


def get_config(arg: str = "full"):
    if arg not in ("full", "smoke"):
        raise ConfigError(f"laptop_base:{arg}: expected full or smoke")
    config = default()

    config.model.num_layers = 4
    config.model.width = 192
    config.model.num_heads = 3
    config.model.qk_norm = True
    config.model.initialization = "zero"  # of the last product of each block

    config.data.sequence_length = 256

    config.optimizer.name = "muon"
    config.optimizer.learning_rate = 4e-3
    config.schedule.name = "wsd"
    config.schedule.warmup = "4.75%"
    config.schedule.decay = "37.5%"
    config.schedule.final_fraction = 0.0

    config.training.duration = "800 steps"
    config.training.batch_size = 8

    config.checkpoint.every = "400 steps"
    config.evaluation.every = "200 steps"
    config.evaluation.tokens = 65_536
    config.evaluation.sample_every = "400 steps"
    config.evaluation.sample_prompt = "json."

    if arg == "smoke":
        config.model.num_layers = 2
        config.model.width = 32
        config.model.num_heads = 2
        config.training.duration = "4 steps"
        config.training.batch_size = 4
        config.checkpoint.every = "2 steps"
        config.evaluation.every = "2 steps"
        config.evaluation.tokens = 2048
        config.evaluation.sample_every = "4 steps"
    return config
