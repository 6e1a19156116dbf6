"""T5Gemma as published (arXiv:2504.06225): --config=configs/t5gemma.py:2b-2b | 9b-9b

Encoder and decoder have Gemma 2's layers (configs/gemma.py). Those of the decoder also have cross-attention, with its
own norms and without rotary positions. Source and target have one embedding each. A window of the encoder reaches 4,095
tokens to each side; in the published code it reaches 4,096.

Data: pairs of any kind, such as instructions and answers, translations, or documents and summaries:

  python -m gptjax.prepare --pairs=DOWNLOADED_FILE --output=data/pairs --vocab_size=65536

Budget, 20 tokens of targets per parameter, with the same number of source tokens: 2b-2b 112 B tokens, 3.7e21 FLOPs;
9b-9b 407 B, 5.2e22. (The published models started from Gemma 2's parameters, and then saw 2,000 B tokens.)
"""

from gptjax.config import ConfigError, default, suggestion

#          layers, width, heads, kv heads, head width, feed-forward, tokens, rate
SIZES = {
    "2b-2b": (26, 2304, 8, 4, 256, 9216, "112B tokens", 4e-4),
    "9b-9b": (42, 3584, 16, 8, 256, 14336, "407B tokens", 3e-4),
}


def get_config(arg: str = "2b-2b"):
    if arg not in SIZES:
        raise ConfigError(f"configs/t5gemma.py:{arg}: expected one of {', '.join(SIZES)}{suggestion(arg, SIZES)}")
    num_layers, width, num_heads, num_kv_heads, head_width, feedforward_width, tokens, rate = SIZES[arg]
    config = default()

    config.model.family = "encoder_decoder"
    config.model.shared_embeddings = False
    config.model.vocab_size = 256_000
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
    config.model.attention_softcap = 50.0
    config.model.logit_softcap = 30.0
    config.model.window = 4096
    config.model.window_pattern = "SL"
    config.model.max_positions = 8192
    config.model.layers = "scan"
    config.model.remat = "dots"

    config.data.path = "data/pairs"
    config.data.sequence_length = 2048

    config.optimizer.learning_rate = rate
    config.schedule.name = "wsd"
    config.schedule.warmup = "2%"

    config.training.objective = "seq2seq"
    config.training.duration = tokens
    config.training.batch_size = 512
    config.training.gradient_accumulation_steps = 16
    config.training.loss_chunk = 8192

    config.evaluation.tokens = 1 << 20
    config.checkpoint.every = "1000 steps"
    config.checkpoint.keep_every = "10000 steps"
    return config
