"""Pythia as published (arXiv:2304.01373): --config=configs/pythia.py:70m | 160m | 410m | 1b | 1.4b | 2.8b | 6.9b | 12b

GPT-NeoX's architecture: attention and feed-forward read the same input, a quarter of each head is rotated, the GELU is
the exact one, and the output layer has its own matrix. The suite exists to study training: all sizes saw the same 300 B
tokens in the same order, in batches of 2 M tokens, and 154 checkpoints of each are published.

Data: the Pile is no longer distributed as a whole; FineWeb-Edu or your own text can replace it:

  python -m gptjax.prepare --input=DOWNLOADED_FOLDER --output=data/fineweb --vocab_size=50304

Budget, the published 300 B tokens: 70m 1.3e20 FLOPs, 160m 2.9e20, 410m 7.3e20, 1b 1.8e21, 1.4b 2.5e21, 2.8b 5.0e21,
6.9b 1.2e22, 12b 2.1e22. 20 tokens per parameter are 1.4 B for 70m (6.0e17 FLOPs) and 237 B for 12b (1.7e22):
`--config.training.duration='1.4B tokens'`.
"""

from gptjax.config import ConfigError, default, suggestion

#       layers, width, heads, vocabulary, learning rate
SIZES = {
    "70m": (6, 512, 8, 50_304, 1e-3),
    "160m": (12, 768, 12, 50_304, 6e-4),
    "410m": (24, 1024, 16, 50_304, 3e-4),
    "1b": (16, 2048, 8, 50_304, 3e-4),
    "1.4b": (24, 2048, 16, 50_304, 2e-4),
    "2.8b": (32, 2560, 32, 50_304, 1.6e-4),
    "6.9b": (32, 4096, 32, 50_432, 1.2e-4),
    "12b": (36, 5120, 40, 50_688, 1.2e-4),
}


def get_config(arg: str = "70m"):
    if arg not in SIZES:
        raise ConfigError(f"configs/pythia.py:{arg}: expected one of {', '.join(SIZES)}{suggestion(arg, SIZES)}")
    num_layers, width, num_heads, vocab_size, learning_rate = SIZES[arg]
    config = default()

    config.model.vocab_size = vocab_size
    config.model.num_layers = num_layers
    config.model.width = width
    config.model.num_heads = num_heads
    config.model.feedforward = "gelu_exact"
    config.model.norm = "layernorm"
    config.model.bias = "all"
    config.model.parallel_residual = True
    config.model.rope_fraction = 0.25
    config.model.max_positions = 2048
    config.model.tied_embeddings = False
    if arg not in ("70m", "160m"):
        config.model.layers = "scan"
        config.model.remat = "dots"

    config.data.path = "data/fineweb"
    config.data.sequence_length = 2048

    config.optimizer.learning_rate = learning_rate
    config.schedule.warmup = "1%"

    config.training.duration = "300B tokens"
    config.training.batch_size = 1024
    config.training.gradient_accumulation_steps = 16
    config.training.loss_chunk = 16_384

    config.evaluation.tokens = 1 << 20
    config.checkpoint.every = "1000 steps"
    config.checkpoint.keep_every = "10000 steps"
    return config
