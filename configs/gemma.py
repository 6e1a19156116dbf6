"""Gemma 2 and 3 as published, without vision: --config=configs/gemma.py:2-2b | 2-9b | 2-27b | 3-270m | 3-1b | 3-4b | …

Both normalize on both sides of every sub-layer, scale embeddings by sqrt(width), and let most layers see only a window.
Gemma 2 (arXiv:2408.00118) caps the logits of attention and of the vocabulary, which cuDNN's attention cannot do: on a
GPU it runs on the xla backend. Gemma 3 (arXiv:2503.19786) normalizes queries and keys instead, and has five windowed
layers, with their own rotary base, before each layer that sees the whole context.

Data: FineWeb-Edu, DCLM or your own text. Most of a small Gemma's parameters are in its embedding, so a smaller
vocabulary saves much:

  python -m gptjax.prepare --input=DOWNLOADED_FOLDER --output=data/fineweb --vocab_size=65536

Budget, 20 tokens per parameter (the published models saw a hundred times more and learned from a larger one):
2-2b 52 B tokens, 8.2e20 FLOPs; 2-9b 185 B, 1.0e22; 2-27b 545 B, 8.9e22; 3-270m 5.4 B, 8.7e18; 3-1b 20 B, 1.2e20;
3-4b 78 B, 1.8e21; 3-12b 235 B, 1.7e22; 3-27b 540 B, 8.8e22.
"""

from gptjax.config import ConfigError, default, suggestion

#         layers, width, heads, kv heads, head width, feed-forward, vocabulary, window, attention scale, tokens, rate
SIZES = {
    "2-2b": (26, 2304, 8, 4, 256, 9216, 256_000, 4096, 256**-0.5, "52B tokens", 4e-4),
    "2-9b": (42, 3584, 16, 8, 256, 14336, 256_000, 4096, 256**-0.5, "185B tokens", 3e-4),
    "2-27b": (46, 4608, 32, 16, 128, 36864, 256_000, 4096, 144**-0.5, "545B tokens", 2e-4),
    "3-270m": (18, 640, 4, 1, 256, 2048, 262_144, 512, 256**-0.5, "5.4B tokens", 1e-3),
    "3-1b": (26, 1152, 4, 1, 256, 6912, 262_144, 512, 256**-0.5, "20B tokens", 6e-4),
    "3-4b": (34, 2560, 8, 4, 256, 10240, 262_208, 1024, 256**-0.5, "78B tokens", 4e-4),
    "3-12b": (48, 3840, 16, 8, 256, 15360, 262_208, 1024, 256**-0.5, "235B tokens", 3e-4),
    "3-27b": (62, 5376, 32, 16, 128, 21504, 262_208, 1024, 168**-0.5, "540B tokens", 2e-4),
}


def get_config(arg: str = "3-270m"):
    if arg not in SIZES:
        raise ConfigError(f"configs/gemma.py:{arg}: expected one of {', '.join(SIZES)}{suggestion(arg, SIZES)}")
    (
        num_layers,
        width,
        num_heads,
        num_kv_heads,
        head_width,
        feedforward_width,
        vocab_size,
        window,
        scale,
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
    config.model.feedforward = "geglu"
    config.model.feedforward_width = feedforward_width
    config.model.norm_epsilon = 1e-6
    config.model.norm_placement = "sandwich"
    config.model.embedding_multiplier = width**0.5
    config.model.attention_scale = scale
    config.model.window = window
    config.model.layers = "scan"
    config.model.remat = "dots"
    if arg.startswith("2"):
        config.model.window_pattern = "SL"
        config.model.attention_softcap = 50.0
        config.model.logit_softcap = 30.0
        config.model.max_positions = 8192
    else:
        config.model.window_pattern = "SSSSSL"
        config.model.qk_norm = True
        config.model.rope_theta = 1_000_000.0
        config.model.rope_local_theta = 10_000.0
        config.model.max_positions = 32_768
        if arg in ("3-4b", "3-12b", "3-27b"):  # trained on 32k positions, then stretched in the layers without a window
            config.model.rope_scaling = "linear"
            config.model.rope_factor = 8.0
            config.model.max_positions = 131_072

    config.data.path = "data/fineweb"
    config.data.sequence_length = 2048

    config.optimizer.learning_rate = rate
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
