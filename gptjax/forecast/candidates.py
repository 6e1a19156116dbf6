"""The candidates of a search: sizes from config files, and numbers of devices; and the amount of text at hand."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from pathlib import Path

from ml_collections import ConfigDict

from gptjax.config import ConfigError
from gptjax.config.user_code import load_config
from gptjax.data.facts import DataFacts
from gptjax.data.prepared import MANIFEST
from gptjax.files.paths import local_path
from gptjax.forecast.devices import Place
from gptjax.forecast.search import Candidate

DIAL = "configs/depth.py"
_OWN = Path(__file__).parents[2] / DIAL  # in a checkout of this code
DEPTHS = (*range(1, 17), *range(18, 33, 2), *range(36, 65, 4))
COUNTS = tuple(2**power for power in range(11))
BYTES_PER_TOKEN = 4.4  # of English text with a vocabulary of about 32,768 tokens, for text that is not tokenized yet
_BYTES = re.compile(r"\s*(\d+(?:\.\d+)?)\s*([KMGT])?B\s*", re.IGNORECASE)
_UNITS = {"": 1.0, "K": 1e3, "M": 1e6, "G": 1e9, "T": 1e12}


def sizes(
    names: Sequence[str], place: Place, facts: Callable[[ConfigDict], DataFacts], fields: dict | None = None
) -> list[Candidate]:
    """A candidate for each config that is named; if none is, for each depth of configs/depth.py.

    facts: returns the facts about a config's data. fields: fields to set in each config.

    Raises:
      ConfigError: a config cannot be loaded, or a name is empty.
    """
    dial = Path(DIAL) if Path(DIAL).is_file() else _OWN
    if not names and not dial.is_file():
        raise ConfigError(f"there is no {DIAL} to choose sizes from: name configs with --sizes, or one with --config")
    if not all(names):
        raise ConfigError(f"--sizes={','.join(names)}: a name between commas is empty")
    files = {name: name for name in names} or {f"{DIAL}:{depth}": f"{dial}:{depth}" for depth in DEPTHS}
    found = []
    for name, file in files.items():
        config = load_config(file)
        config.unlock()
        config.update_from_flattened_dict(fields or {})
        found.append(Candidate(name, config, facts(config), place))
    return found


def counts(config: ConfigDict, data: DataFacts, place: Callable[[int], Place]) -> list[Candidate]:
    """One model on 1, 2, 4, … devices."""
    return [Candidate(f"{count} devices" if count > 1 else "1 device", config, data, place(count)) for count in COUNTS]


def text_tokens(text: str) -> float:
    """The approximate number of tokens in '2GB' of text, or in a file or folder of texts that are not prepared.

    Raises:
      ConfigError: it is neither a size nor an existing path, or it is empty.
    """
    if found := _BYTES.fullmatch(text):
        size = float(found[1]) * _UNITS[(found[2] or "").upper()]
    else:
        path = local_path(text, "--text")
        if not path.exists():
            raise ConfigError(f"--text={text!r}: must be a size such as 2GB, or a file or folder of text that exists")
        files = [path] if path.is_file() else [file for file in path.rglob("*") if file.is_file()]
        size = float(sum(file.stat().st_size for file in files))
    if not size:
        raise ConfigError(f"--text={text!r}: has no text")
    return size / BYTES_PER_TOKEN


def is_prepared(text: str) -> bool:
    """Whether the text is a folder that gptjax prepare wrote."""
    return not _BYTES.fullmatch(text) and (Path(text).expanduser() / MANIFEST).is_file()
