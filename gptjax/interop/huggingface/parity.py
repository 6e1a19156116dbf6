"""Whether two programs compute the same logits: ours on the parameters of a run, and others on a folder."""

from __future__ import annotations

import dataclasses
import functools
import importlib.util
import os
from pathlib import Path
from typing import Any

import jax
import numpy as np

from gptjax.config import RunError
from gptjax.interop.huggingface.equivalence import NOT_OF_THE_FUNCTION
from gptjax.model.families import family_of
from gptjax.settings import ModelSettings

ROWS, LENGTH = 2, 48  # of the batch whose logits are compared
# Two float32 programs differ by rounding: by up to 64 roundings of 6e-8 in a row in the tests' random models of three
# layers, and by more in deep ones, whose residual streams hold large numbers.
TOLERANCE = 1e-3
PACKAGES = ("transformers", "torch")


@dataclasses.dataclass(frozen=True)
class Batch:
    """Random tokens; a sources' batch for models of pairs."""

    tokens_BT: np.ndarray
    sources_BS: np.ndarray | None = None


def batch_for(model: ModelSettings, vocab_size: int = 0) -> Batch:
    """The batch that a model's logits are compared on. vocab_size: of the tokenizer, whose ids are drawn; 0: all."""
    draw = np.random.default_rng(0)
    tokens_BT = draw.integers(0, vocab_size or model.vocab_size, (ROWS, min(LENGTH, model.max_positions)))
    if model.family != "encoder_decoder":
        return Batch(tokens_BT)
    length = min(LENGTH, model.max_source_positions)
    return Batch(tokens_BT, draw.integers(0, vocab_size or model.source_vocab_size, (ROWS, length)))


def own_logits(model: ModelSettings, params: Any, batch: Batch) -> np.ndarray:
    """Our logits [B, T, V] in float32; experts drop no tokens, as in generation."""
    streams = [batch.tokens_BT] if batch.sources_BS is None else [batch.sources_BS, batch.tokens_BT]
    with jax.default_matmul_precision("highest"):
        return np.asarray(_logits(dataclasses.replace(model, **_PLAIN), params, *streams))


# One way of computing a function, so that a run and its export have the same compiled program.
_PLAIN: dict[str, Any] = dict(dtype="float32", matmul="dtype", layers="scan", remat="none", attention="xla")
_PLAIN |= dict(attention_block=64, expert_products="loop", expert_capacity=0.0, dropout=0.0, attention_dropout=0.0)
_PLAIN |= {name: getattr(ModelSettings, name) for name in NOT_OF_THE_FUNCTION - _PLAIN.keys()}


@functools.partial(jax.jit, static_argnums=0)
def _logits(model: ModelSettings, params: Any, *streams: jax.Array) -> jax.Array:
    module: Any = family_of(model).module()
    return module.apply({"params": params}, *streams)


def has_transformers() -> bool:
    return all(importlib.util.find_spec(name) is not None for name in PACKAGES)


def transformers_logits(folder: Path, batch: Batch) -> np.ndarray:
    """The logits of transformers for the model in a folder, in float32 on the CPU. No code of the folder is run.

    Raises:
      RunError: transformers does not load the folder as it is.
    """
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    import torch
    import transformers

    transformers.utils.logging.disable_progress_bar()
    auto = transformers.AutoModelForCausalLM if batch.sources_BS is None else transformers.AutoModelForSeq2SeqLM
    try:
        model, told = auto.from_pretrained(
            str(folder), dtype=torch.float32, output_loading_info=True, use_safetensors=True, trust_remote_code=False
        )
    except Exception as error:
        raise RunError(f"transformers cannot load {folder}: {type(error).__name__}: {str(error)[:300]}") from error
    problems = {name: sorted(map(str, told.get(name) or ())) for name in ("missing_keys", "unexpected_keys")}
    problems["mismatched_keys"] = sorted(map(str, told.get("mismatched_keys") or ()))
    for name, names in problems.items():
        if names:
            raise RunError(f"transformers reports {name} for {folder}: {', '.join(names[:3])}")
    tokens = torch.tensor(batch.tokens_BT)
    # Without masks, T5Gemma hides tokens whose id is that of padding.
    inputs: dict[str, Any] = {"input_ids": tokens, "attention_mask": torch.ones_like(tokens)}
    if batch.sources_BS is not None:
        sources = torch.tensor(batch.sources_BS)
        inputs = {"input_ids": sources, "attention_mask": torch.ones_like(sources), "decoder_input_ids": tokens}
        inputs |= {"decoder_attention_mask": torch.ones_like(tokens)}
    with torch.no_grad():
        return model.eval()(**inputs).logits.float().numpy()


def largest_difference(logits: np.ndarray, others: np.ndarray) -> float:
    """The largest difference, as a share of the largest logit."""
    return float(np.abs(logits - others).max() / max(np.abs(others).max(), 1e-30))


def in_words(difference: float, of: str, what: str = "logits") -> str:
    """'its logits differ from those of the run by 9.7e-07 of the largest'"""
    if difference == 0:
        return f"its {what} equal those of {of}"
    return f"its {what} differ from those of {of} by {difference:.1e} of the largest"
