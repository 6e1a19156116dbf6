"""The language of a text, detected by n-grams of bytes (py3langid: Lui & Baldwin, ACL 2012), from parts of it."""

from __future__ import annotations

import functools
from typing import Any

from gptjax.config import ConfigError

PARTS, PART_CHARACTERS = (
    3,
    400,
)  # characters read: parts of the text are enough, and its ends are often menus


def identify(text: str) -> tuple[str, float]:
    """(ISO 639-1 code, confidence in (0, 1]) of the most likely language; ('', 0) of a text without letters.

    Raises:
      ConfigError: py3langid is not installed.
    """
    sample = _sample(text)
    if not any(map(str.isalpha, sample)):
        return "", 0.0
    code, confidence = _identifier().classify(sample)
    return code, round(float(confidence), 3)  # the last digits depend on the processor


def _sample(text: str) -> str:
    if len(text) <= PARTS * PART_CHARACTERS:
        return text
    step = (len(text) - PART_CHARACTERS) // (PARTS - 1)
    return "\n".join(text[part * step : part * step + PART_CHARACTERS] for part in range(PARTS))


@functools.cache
def _identifier() -> Any:
    try:
        from py3langid.langid import MODEL_FILE, LanguageIdentifier
    except ImportError:
        raise ConfigError("cleaning.language needs pip install 'gptjax[corpus]'") from None
    return LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)
