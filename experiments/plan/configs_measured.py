"""The configs whose plans are compared with real steps on processors: all kinds of models and of ways to train."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from gptjax.config import default
from gptjax.config.user_code import load_config
from gptjax.data.facts import DataFacts

FOLDER = Path(__file__).parents[2] / "configs"
VOCABULARY = 8192
CALIBRATION = "calibration: 4 layers, D = 256"  # sets the machine's speed, and is not scored

STEP = {"mesh.data": 1, "model.attention": "xla", "training.duration": "1000 steps", "model.vocab_size": VOCABULARY}
SMALL = {"model.num_layers": 4, "model.width": 256, "model.num_heads": 4}
SMALL |= {"data.sequence_length": 256, "training.batch_size": 8}
MIDDLE = {"model.num_layers": 6, "model.width": 384, "model.num_heads": 6}
MIDDLE |= {"data.sequence_length": 256, "training.batch_size": 8}
GPT2 = {"model.feedforward": "gelu", "model.norm": "layernorm", "model.position": "learned", "model.bias": "all"}
LAST_LAYERS = ((".*", "freeze", True), ("layers/[45]/.*|final_norm/.*|head", "freeze", False))
BFLOAT16 = {"optimizer.first_moment_dtype": "bfloat16", "optimizer.second_moment_dtype": "bfloat16"}


def facts(config: ConfigDict) -> DataFacts:
    """Facts about data of the config's vocabulary."""
    return DataFacts(config.model.vocab_size, num_classes=2)


def _config(base: str = "", **groups: Any) -> Callable[[], ConfigDict]:
    """A config file's setting, or the defaults, with fields set."""
    fields = {name: value for group in groups.values() for name, value in group.items()}

    def make() -> ConfigDict:
        config = load_config(f"{FOLDER}/{base}") if base else default()
        config.unlock()
        config.update_from_flattened_dict(STEP | fields)
        return config

    return make


def _middle(**fields: Any) -> Callable[[], ConfigDict]:
    """fields: with two underscores for the point, as model__remat."""
    return _config(shape=MIDDLE, more={name.replace("__", "."): value for name, value in fields.items()})


def _dial(depth: int, rows: int) -> Callable[[], ConfigDict]:
    """A small model of the depth dial, as an hour on processors trains it."""
    fields = {"training.batch_size": rows, "training.gradient_accumulation_steps": 1, "model.vocab_size": 2048}
    return _config(f"depth.py:{depth}", rows=fields)


ROWS = {"training.batch_size": 4, "training.gradient_accumulation_steps": 1, "training.loss_chunk": 0}
CONFIGS: dict[str, Callable[[], ConfigDict]] = {
    CALIBRATION: _config(shape=SMALL),
    "decoder, 6 layers, D = 384": _middle(),
    "the same, as GPT-2": _config(shape=MIDDLE, style=GPT2),
    "4 micro-batches": _middle(training__gradient_accumulation_steps=4),
    "remat=full, layers in a loop": _middle(model__remat="full", model__layers="scan"),
    "loss in chunks of 1,024, V = 32,768": _middle(training__loss_chunk=1024, model__vocab_size=32_768),
    "bfloat16 moments": _config(shape=MIDDLE, moments=BFLOAT16),
    "LoRA, rank 8": _middle(model__lora_rank=8),
    "the last 2 of 6 layers": _middle(optimizer__rules=LAST_LAYERS, model__tied_embeddings=False),
    "T = 1,024, window of 128": _middle(
        data__sequence_length=1024, training__batch_size=4, model__window=128, model__window_pattern="SSL"
    ),
    "Llama 135M's shape, 8 layers, grouped queries": _config(
        "llama.py:135m", rows=ROWS | {"model.num_layers": 8, "data.sequence_length": 512}
    ),
    "16 experts, 4 per token": _config("moe.py:tiny", shape=SMALL | {"model.feedforward_width": 192}),
    "encoder and decoder, 3 + 3 layers": _config(
        "transformer.py:base", rows={"model.num_layers": 3, "data.sequence_length": 128, "training.batch_size": 8}
    ),
    "depth 6, Muon": _config("depth.py:6", rows=ROWS | {"data.sequence_length": 512, "training.batch_size": 8}),
    "depth 3, 16 rows of 1,024": _dial(3, 16),
    "GPT-2 124M, 1 row of 1,024": _config(
        "gpt2.py:124m",
        rows=ROWS | {"training.batch_size": 1, "model.vocab_size": 50_304},
    ),
}
