"""The book's recipe for The Verdict: --config=experiments/from_scratch/verdict.py:small | 124m

GPT-2's architecture with dropout, without biases of queries, keys and values, and with its own output matrix, as the
book builds it. Ten epochs of AdamW with a constant rate, two rows of 256 tokens per step. `124m` has the book's layers,
but a vocabulary learned from the text; `small` has four layers of width 256 and trains in a minute on two CPU cores.
"""

from gptjax.config import ConfigError, default

SIZES = {"small": (4, 256, 4), "124m": (12, 768, 12)}


def get_config(arg: str = "small"):
    if arg not in SIZES:
        raise ConfigError(f"experiments/from_scratch/verdict.py:{arg}: expected one of {', '.join(SIZES)}")
    config = default()

    config.model.num_layers, config.model.width, config.model.num_heads = SIZES[arg]
    config.model.feedforward = "gelu"
    config.model.norm = "layernorm"
    config.model.position = "learned"
    config.model.bias = "output+feedforward+norm"
    config.model.tied_embeddings = False
    config.model.dropout = 0.1
    config.model.attention_dropout = 0.1

    config.data.path = "data/verdict"
    config.data.sequence_length = 256

    config.optimizer.learning_rate = 4e-4
    config.optimizer.beta2 = 0.999
    config.optimizer.gradient_clip = 0.0
    config.schedule.name = "constant"
    config.schedule.warmup = "0 steps"

    config.training.duration = "10 epochs"
    config.training.batch_size = 2

    config.checkpoint.every = "1 epochs"
    config.evaluation.every = "1 epochs"
    config.evaluation.sample_every = "5 epochs"
    config.evaluation.sample_prompt = "Every effort moves you"
    config.evaluation.sample_tokens = 40
    return config
