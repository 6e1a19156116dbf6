"""Mixtures of experts: --config=configs/moe.py:tiny | olmoe | qwen3_30b_a3b | glm4.5_air | glm4.5

tiny has 16 experts, of which a token uses 4, and trains within minutes on two CPU cores on any small text:

  python -m gptjax.prepare --input=FOLDER --output=data/books
  python -m gptjax.train --config=configs/moe.py:tiny --config.data.path=data/books --workdir=runs/moe

olmoe is OLMoE-1B-7B's shape (arXiv:2409.02060; 6.92 B parameters, of which a token uses 1.28 B), qwen3_30b_a3b is
Qwen3-30B-A3B's (arXiv:2505.09388; 30.53 B and 3.35 B). glm4.5_air is GLM-4.5-Air's (arXiv:2508.06471; 106.85 B and
13.42 B) and glm4.5 is GLM-4.5's (352.80 B and 33.63 B), both without the layer that predicts a second token; their
first layers, one and three, are dense. Data for all: FineWeb-Edu or DCLM (both on the Hugging Face hub), prepared with
a vocabulary of the model's size or smaller. --config.mesh.expert=8 divides the experts over 8 devices.

Budget at 20 tokens per active parameter (the published models saw thousands): olmoe 25 B tokens, 1.9e20 FLOPs;
qwen3_30b_a3b 67 B, 1.4e21; glm4.5_air 268 B, 2.1e22; glm4.5 673 B, 1.3e23.
"""

from gptjax.config import ConfigError, default, suggestion

GLM = dict(
    vocab_size=151_552,
    num_heads=96,
    num_kv_heads=8,
    head_width=128,
    bias="qkv",
    rope_fraction=0.5,
    rope_theta=1_000_000.0,
    shared_experts=1,
    router_scores="sigmoid",
    router_normalized=True,
    router_bias=True,
    max_positions=131_072,
)
SHAPES = {
    "olmoe": dict(
        vocab_size=50_304,
        num_layers=16,
        width=2048,
        num_heads=16,
        feedforward_width=1024,
        num_experts=64,
        qk_norm=True,
        qk_norm_over="projection",
        max_positions=4096,
    ),
    "qwen3_30b_a3b": dict(
        vocab_size=151_936,
        num_layers=48,
        width=2048,
        num_heads=32,
        num_kv_heads=4,
        head_width=128,
        feedforward_width=768,
        num_experts=128,
        router_normalized=True,
        qk_norm=True,
        norm_epsilon=1e-6,
        rope_theta=1_000_000.0,
        max_positions=40_960,
    ),
    "glm4.5_air": GLM
    | dict(
        num_layers=46,
        width=4096,
        feedforward_width=1408,
        num_experts=128,
        first_dense_layers=1,
        first_dense_width=10_944,
    ),
    "glm4.5": GLM
    | dict(
        num_layers=92,
        width=5120,
        feedforward_width=1536,
        num_experts=160,
        router_scale=2.5,
        qk_norm=True,
        first_dense_layers=3,
        first_dense_width=12_288,
    ),
}
DURATIONS = {"olmoe": "25B tokens", "qwen3_30b_a3b": "67B tokens", "glm4.5_air": "268B tokens", "glm4.5": "673B tokens"}


def get_config(arg: str = "tiny"):
    if arg not in (known := ["tiny", *SHAPES]):
        raise ConfigError(f"configs/moe.py:{arg}: expected one of {', '.join(known)}{suggestion(arg, known)}")
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
    config.model.experts_per_token = 8
    config.model.layers = "scan"
    config.model.remat = "dots"
    config.model.update(SHAPES[name])

    config.data.path = "data/fineweb"
    config.data.sequence_length = 4096

    config.optimizer.learning_rate = 4e-4
    config.schedule.name = "wsd"
    config.schedule.warmup = "2%"

    config.training.duration = DURATIONS[name]
    config.training.batch_size = 256
    config.training.gradient_accumulation_steps = 8
    config.training.loss_chunk = 8192

    config.evaluation.tokens = 1 << 20
    config.checkpoint.every = "1000 steps"
    config.checkpoint.keep_every = "10000 steps"
    return config
