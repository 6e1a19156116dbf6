"""Sliding windows over a stream of tokens: each row of inputs, and the targets that follow its tokens.

python experiments/from_scratch/windows.py --input=the-verdict.txt --length=4 --stride=1
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from tokenizer import Tokenizer, learn


def windows(tokens: Sequence[int], length: int, stride: int) -> tuple[np.ndarray, np.ndarray]:
    """Inputs and targets, int32 [windows, length]; a target is the token after its input.

    Window i begins at token i · stride. With stride = length, each token is a target once per epoch. With a smaller
    stride, windows overlap, and a token is a target several times. Tokens at the end that do not fill a window are left
    out.
    """
    starts = np.arange(0, len(tokens) - length, stride)
    places_BT = starts[:, None] + np.arange(length)
    stream = np.asarray(tokens, np.int32)
    return stream[places_BT], stream[places_BT + 1]


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--input", type=Path, required=True)
    parser.add_argument("--length", type=int, default=4)
    parser.add_argument("--stride", type=int, default=1)
    options = parser.parse_args()
    text = options.input.read_text(encoding="utf-8")
    tokenizer = Tokenizer(*learn(text, 300))
    inputs, targets = windows(tokenizer.encode(text), options.length, options.stride)
    print(f"{len(inputs):,} windows of {options.length} tokens; the first three:")
    for row, wanted in zip(inputs[:3], targets[:3]):
        print(f"  {[tokenizer.decode([i]) for i in row]} → {[tokenizer.decode([i]) for i in wanted]}")


if __name__ == "__main__":
    main()
