"""Masked tokens: which tokens of a row are hidden, and what replaces them (BERT, arXiv:1810.04805, 3.1).

The draws depend only on a key and on the row's place in the order of rows. The place of a training row is step · batch
size + its number in the batch. The place of a row of the validation split is that in the order in which every run
scores the split. A resumed run therefore hides the same tokens, and a score depends only on the model and the set.
"""

from __future__ import annotations

import dataclasses

import numpy as np

from gptjax.data.keys import POSITIONS, SEGMENTS, TARGETS, TOKENS, WEIGHTS
from gptjax.data.splitmix import STEP, mix

VERSION = "splitmix-1"  # version of the draws: change it whenever other tokens would be hidden
KINDS: dict[str, tuple[float, float]] = {  # fractions of the hidden tokens that become the mask, and a random token
    "bert": (0.8, 0.1),  # the rest is not changed, but also predicted
    "plain": (1.0, 0.0),
}


@dataclasses.dataclass(frozen=True)
class Masking:
    """Hides tokens of contiguous or packed windows.

    Attributes:
      fraction: the share of the text's tokens that are hidden. At least one token of every row with text is hidden.
      kind: a key of KINDS.
      mask_id: the token that replaces them; text has only tokens below it.
      never: tokens that are never hidden, because they begin or end documents and are not text.
      key: the key of the random draws.
    """

    fraction: float
    kind: str
    mask_id: int
    never: tuple[int, ...]
    key: int

    def __call__(self, windows: dict[str, np.ndarray], places_B: np.ndarray) -> dict[str, np.ndarray]:
        """Returns rows of windows as an encoder reads them.

        A window is read from its begin token on, as in a decoder, so the token after its last input is not in the row.

        Args:
          windows: tokens, targets int32 and weights float32 [B, T]; segments and positions if they are packed.
          places_B: the place of each row.

        Returns:
          tokens int32 [B, T] with some hidden, targets: the original tokens; weights: 1 at hidden tokens; segments: 0
          in padding; and positions, if they were given.
        """
        text_BT, weights_BT = windows[TOKENS], windows[WEIGHTS]
        # A token without weight is either padding, which comes last, or the begin token of a document.
        inside_BT = np.maximum.accumulate(weights_BT[:, ::-1] > 0, axis=1)[:, ::-1]
        is_text_BT = inside_BT & ~np.isin(text_BT, self.never)
        draw_BT = self._draw(places_B, text_BT.shape[1])
        # The token with the lowest random number of a row is always hidden, so that every row has a token to predict.
        lowest_B1 = np.where(is_text_BT, draw_BT, np.uint64(2**64 - 1)).min(axis=1, keepdims=True)
        hidden_BT = is_text_BT & ((_share(draw_BT) < self.fraction) | (draw_BT == lowest_B1))

        second_BT = mix(draw_BT + STEP)
        masked, any_token = KINDS[self.kind]
        share_BT = _share(second_BT)
        other_BT = ((second_BT & np.uint64(0xFFFFFFFF)) % np.uint64(self.mask_id)).astype(np.int32)
        replaced_BT = np.where(share_BT < masked, np.int32(self.mask_id), other_BT)
        replaced_BT = np.where(share_BT < masked + any_token, replaced_BT, text_BT)
        rows = {
            TOKENS: np.where(hidden_BT, replaced_BT, text_BT),
            TARGETS: text_BT,
            WEIGHTS: hidden_BT.astype(np.float32),
            SEGMENTS: windows.get(SEGMENTS, inside_BT.astype(np.int32)),
        }
        return rows | {name: windows[name] for name in (POSITIONS,) if name in windows}

    def facts(self) -> dict:
        """What the rows depend on besides the key, which follows from the data's seed."""
        known = {name: value for name, value in dataclasses.asdict(self).items() if name != "key"}
        return {**known, "never": list(self.never), "version": VERSION}

    def _draw(self, places_B: np.ndarray, length: int) -> np.ndarray:
        """uint64 [B, T]: a number for each position of each row."""
        row_B = mix(np.uint64(self.key) + (np.asarray(places_B, np.uint64) + np.uint64(1)) * STEP)
        return mix(row_B[:, None] + np.arange(1, length + 1, dtype=np.uint64) * STEP)


def _share(draw: np.ndarray) -> np.ndarray:
    """The upper 32 bits as a number in [0, 1)."""
    return (draw >> np.uint64(32)).astype(np.float64) / 2.0**32
