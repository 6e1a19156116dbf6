"""Llama-shaped models as published: --config=configs/llama.py:135m | 1b | 3b | 8b | 70b

135m is SmolLM2-135M's shape, 1b and 3b are Llama-3.2's, 8b and 70b are Llama-3.1's.

Data: FineWeb-Edu, DCLM (both on the Hugging Face hub) or your own text, prepared with a vocabulary of the model's size
or smaller; a smaller one leaves rows unused, which costs only memory:

  python -m gptjax.prepare --input=DOWNLOADED_FOLDER --output=data/fineweb --vocab_size=49152

Budget at 20 tokens per parameter (the published models saw a hundred times more): 135m 2.7 B tokens, 2.2e18 FLOPs;
1b 25 B, 1.8e20; 3b 64 B, 1.2e21; 8b 160 B, 7.7e21; 70b 1.4 T, 5.9e23.
"""

from gptjax.config import ConfigError, default, suggestion

#        layers, width, heads, kv heads, head width, feed-forward, vocabulary, tied, theta, llama3 factor, tokens, rate
SIZES = {
    "135m": (30, 576, 9, 3, 64, 1536, 49152, True, 100_000.0, None, "2.7B tokens", 3e-3),
    "1b": (16, 2048, 32, 8, 64, 8192, 128256, True, 500_000.0, 32.0, "25B tokens", 5e-4),
    "3b": (28, 3072, 24, 8, 128, 8192, 128256, True, 500_000.0, 32.0, "64B tokens", 4e-4),
    "8b": (32, 4096, 32, 8, 128, 14336, 128256, False, 500_000.0, 8.0, "160B tokens", 3e-4),
    "70b": (80, 8192, 64, 8, 128, 28672, 128256, False, 500_000.0, 8.0, "1400B tokens", 1.5e-4),
}


def get_config(arg: str = "135m"):
    if arg not in SIZES:
        raise ConfigError(f"configs/llama.py:{arg}: expected one of {', '.join(SIZES)}{suggestion(arg, SIZES)}")
    (
        num_layers,
        width,
        num_heads,
        num_kv_heads,
        head_width,
        feedforward_width,
        vocab_size,
        tied,
        theta,
        factor,
        tokens,
        rate,
    ) = SIZES[arg]
    config = default()

    config.model.vocab_size = vocab_size
    config.model.num_layers = num_layers
    config.model.width = width
    config.model.num_heads = num_heads
    config.model.num_kv_heads = num_kv_heads
    config.model.head_width = head_width
    config.model.feedforward_width = feedforward_width
    config.model.tied_embeddings = tied
    config.model.rope_theta = theta
    config.model.max_positions = 8192
    if factor:
        config.model.rope_scaling = "llama3"
        config.model.rope_factor = factor
        config.model.max_positions = 131_072
    if arg != "135m":
        config.model.layers = "scan"
        config.model.remat = "dots"

    config.data.path = "data/fineweb"
    config.data.sequence_length = 2048

    config.optimizer.learning_rate = rate
    config.schedule.name = "wsd"
    config.schedule.warmup = "2%"

    config.training.duration = tokens
    config.training.batch_size = 512
    config.training.gradient_accumulation_steps = 16
    config.training.loss_chunk = 16_384

    config.evaluation.tokens = 1 << 20
    config.checkpoint.every = "1000 steps"
    config.checkpoint.keep_every = "10000 steps"
    return config
