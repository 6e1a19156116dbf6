"""GPT-2 as published (Radford et al. 2019): --config=configs/gpt2.py:124m | 350m | 774m | 1558m

Data: GPT-2 read WebText, which was never released; OpenWebText and FineWeb-Edu (both on the Hugging Face hub) are the
usual replacements. Prepare any of them with a 50,257-token vocabulary:

  python -m gptjax.prepare --input=DOWNLOADED_FOLDER --output=data/openwebtext --vocab_size=50257

Budget of 124m, Chinchilla-optimal: 124M parameters x 20 tokens = 2.5 B tokens = 4,730 steps of 524,288 tokens;
6 x 124e6 x 2.5e9 = 1.9e18 FLOPs, about 1.3 hours at 400 TFLOP/s. The published quality (loss 2.85 on OpenWebText) took
300 B tokens.
"""

from gptjax.config import ConfigError, default, suggestion

#        layers, width, heads, learning rate, micro-batches per step of 512 sequences
SIZES = {
    "124m": (12, 768, 12, 6e-4, 8),
    "350m": (24, 1024, 16, 3e-4, 16),
    "774m": (36, 1280, 20, 2.5e-4, 32),
    "1558m": (48, 1600, 25, 2e-4, 64),
}


def get_config(arg: str = "124m"):
    if arg not in SIZES:
        raise ConfigError(f"configs/gpt2.py:{arg}: expected one of {', '.join(SIZES)}{suggestion(arg, SIZES)}")
    num_layers, width, num_heads, learning_rate, micro_batches = SIZES[arg]
    config = default()

    config.model.vocab_size = 50257
    config.model.num_layers = num_layers
    config.model.width = width
    config.model.num_heads = num_heads
    config.model.max_positions = 1024
    config.model.feedforward = "gelu"
    config.model.norm = "layernorm"
    config.model.position = "learned"
    config.model.bias = "all"

    config.data.path = "data/openwebtext"
    config.data.sequence_length = 1024

    config.optimizer.learning_rate = learning_rate
    config.schedule.warmup = "14%"  # 350M tokens

    config.training.duration = "2.5B tokens"
    config.training.batch_size = 512
    config.training.gradient_accumulation_steps = micro_batches
    config.training.loss_chunk = 16_384

    config.evaluation.tokens = 1 << 20
    config.checkpoint.every = "1000 steps"
    config.checkpoint.keep_every = "10000 steps"
    return config
