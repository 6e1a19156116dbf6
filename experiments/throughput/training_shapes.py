"""The shapes, the two architectures and the batches that both sides of the measurement train."""

from __future__ import annotations

import dataclasses

import numpy as np

STYLES = ("gpt2", "llama")
DTYPES = ("float32", "bfloat16")


@dataclasses.dataclass(frozen=True)
class Shape:
    """layers, heads, width, T, rows of a batch, vocabulary; steps: in one turn of a measurement, about two seconds."""

    num_layers: int
    num_heads: int
    width: int
    sequence_length: int
    batch_size: int
    vocab_size: int
    steps: int

    @property
    def tokens(self) -> int:
        return self.batch_size * self.sequence_length

    def feedforward_width(self, style: str) -> int:
        """4 D, or the 8/3 D of a gated layer rounded up to a multiple of 64."""
        return 4 * self.width if style == "gpt2" else -(-8 * self.width // 192) * 64

    def __str__(self) -> str:
        return (
            f"{self.num_layers}L {self.num_heads}H D={self.width} T={self.sequence_length} B={self.batch_size} "
            f"V={self.vocab_size}"
        )


# nanoGPT's two character models (the second with a batch that suits a laptop) and GPT-2 124M, one row at a time. The
# last vocabulary is GPT-2's 50,257 rounded up to a multiple of 64, as in nanoGPT.
SHAPES = {
    "tiny": Shape(4, 4, 128, 64, 12, 65, steps=60),
    "small": Shape(6, 6, 384, 256, 16, 65, steps=2),
    "124m": Shape(12, 12, 768, 1024, 1, 50304, steps=1),
}

LEARNING_RATE, BETA1, BETA2, EPSILON, WEIGHT_DECAY, GRADIENT_CLIP = 1e-3, 0.9, 0.95, 1e-8, 0.1, 1.0


def batches(shape: Shape, count: int = 8) -> list[tuple[np.ndarray, np.ndarray]]:
    """Returns random (tokens, targets), int32 [B, T] each, the same for both sides."""
    rng = np.random.default_rng(0)
    windows = rng.integers(0, shape.vocab_size, (count, shape.batch_size, shape.sequence_length + 1), np.int32)
    return [(rows[:, :-1], rows[:, 1:]) for rows in windows]
