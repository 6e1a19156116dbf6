"""Qwen3's dense shapes as published (arXiv:2505.09388): --config=configs/qwen3.py:0.6b | 1.7b

They differ from Llama's in normalized queries and keys, and in heads that are wider than width / num_heads.

Data: your own text, or FineWeb-Edu (on the Hugging Face hub):

  python -m gptjax.prepare --input=DOWNLOADED_FOLDER --output=data/fineweb --vocab_size=65536

Budget at 20 tokens per parameter: 0.6b 12 B tokens, 4.3e19 FLOPs; 1.7b 34 B, 3.5e20.
"""

from gptjax.config import ConfigError, default, suggestion

#        width, feed-forward, tokens, learning rate
SIZES = {"0.6b": (1024, 3072, "12B tokens", 6e-4), "1.7b": (2048, 6144, "34B tokens", 4e-4)}


def get_config(arg: str = "0.6b"):
    if arg not in SIZES:
        raise ConfigError(f"configs/qwen3.py:{arg}: expected one of {', '.join(SIZES)}{suggestion(arg, SIZES)}")
    width, feedforward_width, tokens, learning_rate = SIZES[arg]
    config = default()

    config.model.vocab_size = 151_936
    config.model.num_layers = 28
    config.model.width = width
    config.model.num_heads = 16
    config.model.num_kv_heads = 8
    config.model.head_width = 128
    config.model.feedforward_width = feedforward_width
    config.model.qk_norm = True
    config.model.norm_epsilon = 1e-6
    config.model.rope_theta = 1_000_000.0
    config.model.max_positions = 40_960
    config.model.layers = "scan"
    config.model.remat = "dots"

    config.data.path = "data/fineweb"
    config.data.sequence_length = 2048

    config.optimizer.learning_rate = learning_rate
    config.schedule.name = "wsd"
    config.schedule.warmup = "2%"

    config.training.duration = tokens
    config.training.batch_size = 512
    config.training.gradient_accumulation_steps = 16
    config.training.loss_chunk = 8192

    config.evaluation.tokens = 1 << 20
    config.checkpoint.every = "1000 steps"
    config.checkpoint.keep_every = "10000 steps"
    return config
