"""Reads JSON files that may be damaged; a damaged file is refused in one sentence."""

from __future__ import annotations

import json
import re
from typing import Any

from gptjax.errors import ConfigError

_PART_OF_A_VALUE = re.compile(r"t|tr|tru|f|fa|fal|fals|n|nu|nul|-|\.|[eE][-+]?|")


def parsed(data: bytes | str, file: str, remedy: str, kind: type = dict) -> Any:
    """Parses the content of a JSON file.

    Args:
      data: the content.
      file: the file's name, for messages.
      remedy: what the user should do if the file is damaged, as the end of a sentence.
      kind: the type that the value must have.

    Raises:
      ConfigError: the content is not JSON, or not a `kind`.
    """
    try:
        text = data if isinstance(data, str) else data.decode("utf-8")
        value = json.loads(text)
    except UnicodeDecodeError as error:
        problem = f"is not UTF-8 text (byte {error.start + 1:,} is 0x{error.object[error.start]:02x})"
    except json.JSONDecodeError as error:
        rest = text[error.pos :].rstrip()
        is_part = _PART_OF_A_VALUE.fullmatch(rest) is not None  # also if nothing is left
        is_cut = is_part or error.msg.startswith("Unterminated string")
        if not text.strip():
            problem = "is empty"
        elif is_cut:
            problem = f"is cut off in line {error.lineno}: it is not whole JSON"
        else:
            problem = f"is not JSON at line {error.lineno}, column {error.colno}"
    except (RecursionError, ValueError):  # ValueError: a number with more digits than Python accepts
        problem = "is not JSON that can be read: it is nested too deeply, or a number in it is too long"
    else:
        if isinstance(value, kind):
            return value
        words: dict[type, str] = {dict: "a JSON object", list: "a JSON array"}
        problem = f"must hold {words[kind]}, and holds {json.dumps(value)[:40]}"
    raise ConfigError(f"{file} {problem}; {remedy}")
