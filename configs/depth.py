"""One dial: --config=configs/depth.py:12. Width, heads, batch, learning rates, weight decay and tokens follow from it.

Data: any prepared folder, named with --config.data.path=…; bits per byte compare across vocabularies.

The shape has width = 64 x depth, and heads are 64 wide. N is the number of parameters: 12 D² per layer, and V x D in
the output layer for an assumed vocabulary of 32,768. Then
  tokens = 20 N (Hoffmann et al. 2022, arXiv:2203.15556)
  batch  = 2^19 tokens x (tokens / 2.2e9)^0.383, to the nearest power of two (larger runs need larger batches)
  AdamW's learning rate ∝ width^-1/2; Muon's is the same at every width; weight decay ∝ 1 / depth
  the embedding starts with a standard deviation of 1 and has 100 times the head's rate, without decay, as in nanochat:
  better than 0.02 and one rate for both (experiments/quality/README.md has the table)
so depth 4: N = 11.5 M, 231 M tokens, 880 steps of 262,144;  depth 12: N = 110 M, 2.2 B tokens, 4,200 steps of 524,288,
6 N x tokens = 1.5e18 FLOPs;  depth 20: N = 435 M, 8.7 B tokens, 2.3e19 FLOPs.
"""

import math

from gptjax.config import ConfigError, default

VOCABULARY = 32_768
SEQUENCE_LENGTH = 1024


def get_config(arg: str = "12"):
    if not arg.isdigit() or not 1 <= int(arg) <= 64:
        raise ConfigError(f"configs/depth.py:{arg}: expected a depth from 1 to 64")
    depth = int(arg)
    width = 64 * depth
    parameters = 12 * depth * width**2 + VOCABULARY * width
    tokens = 20 * parameters
    batch_tokens = 2 ** round(19 + 0.383 * math.log2(tokens / 2.2e9))
    config = default()

    config.model.num_layers = depth
    config.model.width = width
    config.model.num_heads = depth
    config.model.feedforward = "relu2"
    config.model.qk_norm = True
    config.model.tied_embeddings = False
    config.model.initialization = "zero"
    config.model.embedding_std = 1.0
    config.model.logit_softcap = 15.0

    config.data.sequence_length = SEQUENCE_LENGTH

    config.optimizer.name = "muon"
    config.optimizer.learning_rate = 3e-3 * math.sqrt(768 / width)
    config.optimizer.muon_learning_rate = 0.02
    config.optimizer.rules = (("embedding", "learning_rate", 100.0), ("embedding", "weight_decay", 0.0))
    config.optimizer.weight_decay = min(0.1 * 12 / depth, 0.5)
    config.schedule.name = "wsd"
    config.schedule.warmup = "2%"
    config.schedule.decay = "40%"
    config.schedule.final_fraction = 0.0

    config.training.duration = f"{tokens / 1e6:.1f}M tokens"
    config.training.batch_size = batch_tokens // SEQUENCE_LENGTH
    config.training.gradient_accumulation_steps = max(1, batch_tokens // 2**16)
    config.training.loss_chunk = 8192

    config.checkpoint.every = "10%"
    config.evaluation.every = "5%"
    config.evaluation.tokens = 1 << 20
    return config
