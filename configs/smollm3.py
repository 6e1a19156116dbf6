"""SmolLM3 3B as published: --config=configs/smollm3.py

It is Llama's shape, except that every fourth layer has no rotary positions (https://huggingface.co/blog/smollm3).

Data: FineWeb-Edu, DCLM or your own text, prepared with a vocabulary of the model's size or smaller:

  python -m gptjax.prepare --input=DOWNLOADED_FOLDER --output=data/fineweb --vocab_size=65536

Budget, 20 tokens per parameter: 3.1 B parameters, 62 B tokens, 1.1e21 FLOPs (the published model saw 11 T tokens). To
compare its architecture with Llama's, 62 B tokens are more than enough.
"""

from gptjax.config import default


def get_config():
    config = default()

    config.model.vocab_size = 128_256
    config.model.num_layers = 36
    config.model.width = 2048
    config.model.num_heads = 16
    config.model.num_kv_heads = 4
    config.model.feedforward_width = 11_008
    config.model.norm_epsilon = 1e-6
    config.model.rope_theta = 5_000_000.0
    config.model.window_pattern = "LLLN"
    config.model.max_positions = 65_536
    config.model.layers = "scan"
    config.model.remat = "dots"

    config.data.path = "data/fineweb"
    config.data.sequence_length = 4096

    config.optimizer.learning_rate = 2e-4
    config.schedule.name = "wsd"
    config.schedule.warmup = "2%"
    config.schedule.decay = "10%"

    config.training.duration = "62B tokens"
    config.training.batch_size = 512
    config.training.gradient_accumulation_steps = 16
    config.training.loss_chunk = 16_384

    config.evaluation.tokens = 1 << 20
    config.checkpoint.every = "1000 steps"
    config.checkpoint.keep_every = "10000 steps"
    return config
