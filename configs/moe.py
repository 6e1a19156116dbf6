"""Mixtures of experts: --config=configs/moe.py:tiny | olmoe | qwen3_30b_a3b

tiny has 16 experts of which a token uses 4, and trains within minutes on two CPU cores on any small text:

  python -m gptjax.prepare --input=FOLDER --output=data/books
  python -m gptjax.train --config=configs/moe.py:tiny --config.data.path=data/books --workdir=runs/moe

olmoe is OLMoE-1B-7B's shape (arXiv:2409.02060; 6.92 B parameters, of which a token uses 1.28 B), qwen3_30b_a3b is
Qwen3-30B-A3B's (arXiv:2505.09388; 30.53 B and 3.35 B). Their data: FineWeb-Edu or DCLM (both on the Hugging Face hub),
prepared with a vocabulary of the model's size or smaller. --config.mesh.expert=8 divides the experts over 8 devices.

Budget at 20 tokens per active parameter (the published models saw thousands): olmoe 25 B tokens, 1.9e20 FLOPs;
qwen3_30b_a3b 67 B, 1.4e21.
"""

from gptjax.config import ConfigError, default

NAMES = ("tiny", "olmoe", "qwen3_30b_a3b")


def get_config(arg: str = "tiny"):
    if arg not in NAMES:
        raise ConfigError(f"configs/moe.py:{arg}: expected one of {', '.join(NAMES)}")
    return _tiny() if arg == "tiny" else _large(arg)


def _tiny():
    config = default()
    config.model.num_layers = 4
    config.model.width = 128
    config.model.num_heads = 2
    config.model.feedforward_width = 96  # four of them are about as wide as one layer of 8/3 D
    config.model.num_experts = 16
    config.model.experts_per_token = 4
    config.model.router_normalized = True
    config.model.qk_norm = True
    config.model.layers = "scan"

    config.data.sequence_length = 128

    config.optimizer.learning_rate = 3e-3
    config.training.duration = "1000 steps"
    config.training.batch_size = 16

    config.checkpoint.every = "250 steps"
    config.evaluation.every = "100 steps"
    config.evaluation.sample_every = "500 steps"
    config.evaluation.sample_prompt = ""  # start a new document
    return config


def _large(name):
    config = default()
    config.model.tied_embeddings = False
    config.model.qk_norm = True
    config.model.experts_per_token = 8
    config.model.layers = "scan"
    config.model.remat = "dots"
    if name == "olmoe":
        config.model.vocab_size = 50_304
        config.model.num_layers = 16
        config.model.width = 2048
        config.model.num_heads = 16
        config.model.feedforward_width = 1024
        config.model.num_experts = 64
        config.model.qk_norm_over = "projection"
        config.model.max_positions = 4096
    else:
        config.model.vocab_size = 151_936
        config.model.num_layers = 48
        config.model.width = 2048
        config.model.num_heads = 32
        config.model.num_kv_heads = 4
        config.model.head_width = 128
        config.model.feedforward_width = 768
        config.model.num_experts = 128
        config.model.router_normalized = True
        config.model.norm_epsilon = 1e-6
        config.model.rope_theta = 1_000_000.0
        config.model.max_positions = 40_960

    config.data.path = "data/fineweb"
    config.data.sequence_length = 4096

    config.optimizer.learning_rate = 4e-4
    config.schedule.name = "wsd"
    config.schedule.warmup = "2%"

    config.training.duration = "25B tokens" if name == "olmoe" else "67B tokens"
    config.training.batch_size = 256
    config.training.gradient_accumulation_steps = 8
    config.training.loss_chunk = 8192

    config.evaluation.tokens = 1 << 20
    config.checkpoint.every = "1000 steps"
    config.checkpoint.keep_every = "10000 steps"
    return config
