"""OLMo 2 as published (arXiv:2501.00656): --config=configs/olmo2.py:1b | 7b | 13b | 32b

It differs from Llama's shape in norms after the sub-layers instead of before them, and in queries and keys that are
normalized over all heads together; both were chosen for stability.

Data: OLMo-mix, FineWeb-Edu or your own text, prepared with a vocabulary of the model's size or smaller:

  python -m gptjax.prepare --input=DOWNLOADED_FOLDER --output=data/fineweb --vocab_size=100352

Budget, 20 tokens per parameter (the published models saw 4 to 6 T tokens): 1b 30 B tokens, 2.7e20 FLOPs; 7b 146 B,
6.4e21; 13b 274 B, 2.3e22; 32b 645 B, 1.2e23.
"""

from gptjax.config import ConfigError, default, suggestion

#       layers, width, heads, kv heads, feed-forward, tokens, learning rate
SIZES = {
    "1b": (16, 2048, 16, 16, 8192, "30B tokens", 4e-4),
    "7b": (32, 4096, 32, 32, 11008, "146B tokens", 3e-4),
    "13b": (40, 5120, 40, 40, 13824, "274B tokens", 9e-4),
    "32b": (64, 5120, 40, 8, 27648, "645B tokens", 6e-4),
}


def get_config(arg: str = "1b"):
    if arg not in SIZES:
        raise ConfigError(f"configs/olmo2.py:{arg}: expected one of {', '.join(SIZES)}{suggestion(arg, SIZES)}")
    num_layers, width, num_heads, num_kv_heads, feedforward_width, tokens, learning_rate = SIZES[arg]
    config = default()

    config.model.vocab_size = 100_352
    config.model.num_layers = num_layers
    config.model.width = width
    config.model.num_heads = num_heads
    config.model.num_kv_heads = num_kv_heads
    config.model.feedforward_width = feedforward_width
    config.model.norm_placement = "post"
    config.model.norm_epsilon = 1e-6
    config.model.qk_norm = True
    config.model.qk_norm_over = "projection"
    config.model.rope_theta = 500_000.0
    config.model.max_positions = 4096
    config.model.tied_embeddings = False
    config.model.initialization = "normal"
    config.model.layers = "scan"
    config.model.remat = "dots"

    config.data.path = "data/fineweb"
    config.data.sequence_length = 4096

    config.optimizer.learning_rate = learning_rate
    config.schedule.warmup = "2%"

    config.training.duration = tokens
    config.training.batch_size = 512
    config.training.gradient_accumulation_steps = 16
    config.training.loss_chunk = 16_384
    config.training.z_loss = 1e-5

    config.evaluation.tokens = 1 << 20
    config.checkpoint.every = "1000 steps"
    config.checkpoint.keep_every = "10000 steps"
    return config
