"""Whether a GGUF file holds the model: read back by the gguf package, and computed by llama.cpp if it is installed."""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from gptjax.interop.gguf import file_tensors
from gptjax.interop.huggingface.tensors import Written

# The largest difference of a number from what was written, as a part of the largest number of its tensor. In q8_0, the
# largest of 32 numbers is 127 steps, and the step itself is rounded to 16 bits.
ROUNDING = {"float32": 0.0, "float16": 2.0**-11, "bfloat16": 2.0**-8, "q8_0": 0.5 / 127 + 2.0**-11}
# The same for the logits of llama.cpp, which rounds what it multiplies to the type of the matrix.
TOLERANCE = {"float32": 1e-3, "float16": 1e-2, "bfloat16": 4e-2, "q8_0": 1e-1}


def largest_rounding(path: Path, content: Mapping[str, Any], tensors: Sequence[Written]) -> float:
    """The largest difference between a tensor and the file's, as a part of the tensor's largest number."""
    import gguf

    found = {tensor.name: tensor for tensor in gguf.GGUFReader(path).tensors}
    largest = 0.0
    for tensor in file_tensors(content, tensors):
        expected = tensor.value()
        stored = gguf.dequantize(found[tensor.name].data, found[tensor.name].tensor_type)
        largest = max(largest, float(np.abs(stored - expected).max() / max(np.abs(expected).max(), 1e-30)))
    return largest


def has_llama_cpp() -> bool:
    return importlib.util.find_spec("llama_cpp") is not None


def llama_cpp_logits(path: Path, tokens_BT: np.ndarray) -> np.ndarray:
    """The logits [B, T, V] of llama.cpp, on the CPU."""
    import llama_cpp

    wide = dict(type_k=0, type_v=0)  # float32; by default its cache has numbers of 16 bits
    model = llama_cpp.Llama(str(path), n_ctx=tokens_BT.shape[1], logits_all=True, verbose=False, **wide)
    rows = []
    for tokens in tokens_BT:
        model.reset()
        model.eval(tokens.tolist())
        rows.append(np.array(model.scores[: len(tokens)]))
    model.close()
    return np.stack(rows)
