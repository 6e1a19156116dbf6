"""The original Transformer (arXiv:1706.03762): --config=configs/transformer.py:base | big

An encoder and a decoder of six layers, normalized after each addition, with sinusoidal positions and one embedding for
the tokens of sources, targets and logits. Like most later code it adds biases in attention, too, which are 36,864 of
base's 63,082,496 parameters (the paper says 65 million); big has 214,245,376 (213 million).

Data: pairs, such as WMT 2014's English and German sentences, with one vocabulary of 37,000 tokens:

  python -m gptjax.prepare --pairs=DOWNLOADED_FILE --output=data/wmt14 --vocab_size=37000

Budget, as in the paper, about 25,000 tokens of targets in a batch: base 100,000 steps, 2.5 B tokens, about 1e18 FLOPs;
big 300,000 steps, 7.4 B tokens, about 1e19.
"""

from gptjax.config import ConfigError, default, suggestion

#        width, heads, feed-forward, dropout, steps
SIZES = {
    "base": (512, 8, 2048, 0.1, 100_000),
    "big": (1024, 16, 4096, 0.3, 300_000),
}
WARMUP = 4000  # steps


def get_config(arg: str = "base"):
    if arg not in SIZES:
        raise ConfigError(f"configs/transformer.py:{arg}: expected one of {', '.join(SIZES)}{suggestion(arg, SIZES)}")
    width, num_heads, feedforward_width, dropout, steps = SIZES[arg]
    config = default()

    config.model.family = "encoder_decoder"
    config.model.vocab_size = 37_000
    config.model.num_layers = 6
    config.model.width = width
    config.model.num_heads = num_heads
    config.model.feedforward = "relu"
    config.model.feedforward_width = feedforward_width
    config.model.norm = "layernorm"
    config.model.norm_placement = "post_residual"
    config.model.bias = "all"
    config.model.position = "sinusoidal"
    config.model.dropout = dropout
    config.model.initialization = "normal"
    config.model.initialization_std = width**-0.5  # embeddings are multiplied by its inverse

    config.data.path = "data/wmt14"
    config.data.sequence_length = 256

    config.optimizer.learning_rate = (width * WARMUP) ** -0.5  # the peak of the paper's schedule
    config.optimizer.beta2 = 0.98
    config.optimizer.epsilon = 1e-9
    config.optimizer.weight_decay = 0.0
    config.optimizer.gradient_clip = 0.0
    config.schedule.name = "inverse_sqrt"
    config.schedule.warmup = f"{100 * WARMUP / steps:.4g}%"

    config.training.objective = "seq2seq"
    config.training.duration = f"{steps} steps"
    config.training.batch_size = 96
    config.training.label_smoothing = 0.1

    config.evaluation.every = "2000 steps"
    config.checkpoint.every = "2000 steps"
    config.checkpoint.keep_latest = 5
    return config
