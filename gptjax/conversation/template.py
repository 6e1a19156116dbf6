"""A chat template: the text and the control tokens around each message, as data.

  chatml   OpenAI's ChatML, <|im_start|>ROLE …<|im_end|>: what most open models use
  turns    one control token per role, <|user|>…<|end|>: every tokenizer made here has these tokens already
  alpaca   Stanford Alpaca's headings, '### Instruction:': plain text, which a user's message can imitate

A template of your own is a JSON file with the same fields (templates/).
"""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from gptjax.config import ConfigError, suggestion
from gptjax.conversation.messages import ASSISTANT, ROLES
from gptjax.files.paths import local_path

_FOLDER = Path(__file__).parent / "templates"
TEMPLATES = tuple(sorted(path.stem for path in _FOLDER.glob("*.json")))
FIELD = "template"  # for messages


@dataclasses.dataclass(frozen=True)
class Template:
    """What is written around the messages of a conversation.

    Attributes:
      name: for people.
      controls: the names of its control tokens, which only a renderer writes: no text has their ids.
      turns: role → (before, after): text and control tokens before and after the content of its message.
      end: the control token that ends a turn of the assistant. It follows the content, and generation stops at it.
      system: the system message of a conversation that has none; '': there is none.
    """

    name: str
    controls: tuple[str, ...]
    turns: Mapping[str, tuple[str, str]]
    end: str
    system: str = ""

    def to_json(self) -> dict[str, Any]:
        turns = {role: list(parts) for role, parts in self.turns.items()}
        return {**dataclasses.asdict(self), "controls": list(self.controls), "turns": turns}

    def pieces(self, text: str) -> list[str]:
        """The text, split at its control tokens, which are pieces of their own; no piece is empty."""
        names = "|".join(map(re.escape, sorted(self.controls, key=len, reverse=True)))
        return [piece for piece in re.split(f"({names})", text) if piece]

    def text(self) -> str:
        """All text of the template except control tokens, for a tokenizer of characters."""
        written = [part for turn in self.turns.values() for part in turn] + [self.system]
        return "".join(piece for part in written for piece in self.pieces(part) if piece not in self.controls)

    def jinja(self, generation: bool = True) -> str:
        """The same template in Jinja, as `transformers` and inference servers read it.

        It renders `messages`, and with `add_generation_prompt` also what comes before an answer. What the assistant
        wrote is in a {% generation %} block, which not every program knows; `generation` = False leaves the block out.
        """
        begin, end = ("{%- generation -%}", "{%- endgeneration -%}") if generation else ("", "")
        lines = []
        if self.system:
            before, after = self.turns["system"]
            lines.append(
                "{%- if not messages or messages[0]['role'] != 'system' -%}"
                + "{{- "
                + _literal(before + self.system + after)
                + " -}}{%- endif -%}"
            )
        lines.append("{%- for message in messages -%}")
        for number, (role, (before, after)) in enumerate(self.turns.items()):
            lines.append(f"{{%- {'elif' if number else 'if'} message['role'] == {_literal(role)} -%}}")
            if role == ASSISTANT:
                rest = after.removeprefix(self.end)
                lines.append("{{- " + _literal(before) + " -}}" + begin)
                lines.append("{{- message['content'] + " + _literal(self.end) + " -}}" + end)
                lines.append("{{- " + _literal(rest) + " -}}")
            else:
                lines.append("{{- " + _literal(before) + " + message['content'] + " + _literal(after) + " -}}")
        lines.append("{%- endif -%}{%- endfor -%}{%- if add_generation_prompt -%}")
        lines.append("{{- " + _literal(self.turns[ASSISTANT][0]) + " -}}{%- endif -%}")
        return "\n".join(lines) + "\n"


def _literal(text: str) -> str:
    """A text as Jinja writes it. JSON's escapes of characters beyond U+FFFF mean something else to Jinja."""
    return json.dumps(text, ensure_ascii=False)


def load_template(name: str) -> Template:
    """One of TEMPLATES, or a JSON file with the same fields.

    Raises:
      ConfigError: there is no such template, or it is not valid.
    """
    path = _FOLDER / f"{name}.json" if name in TEMPLATES else local_path(name, FIELD)
    if not path.is_file():
        raise ConfigError(
            f"{FIELD} = {name!r}: expected one of {', '.join(TEMPLATES)}, or a JSON file{suggestion(name, TEMPLATES)}"
        )
    try:
        return template_of(json.loads(path.read_text(encoding="utf-8")), str(path))
    except (OSError, ValueError, RecursionError) as error:
        raise ConfigError(f"{FIELD} = {name!r}: cannot be read as JSON ({type(error).__name__})") from None


def template_of(fields: Any, source: str) -> Template:
    """A template from its fields (`Template.to_json`). source: where they are from, for messages.

    Raises:
      ConfigError: names the wrong field, its value and what is allowed.
    """
    problem = _problem(fields)
    if problem:
        raise ConfigError(f"{source}: {problem}")
    turns = {role: (before, after) for role, (before, after) in fields["turns"].items()}
    return Template(fields["name"], tuple(fields["controls"]), turns, fields["end"], fields.get("system", ""))


def _problem(fields: Any) -> str:
    """What is wrong with the fields of a template; '' if nothing is."""
    known = {field.name for field in dataclasses.fields(Template)}
    if not isinstance(fields, dict) or not known - {"system"} <= set(fields) <= known:
        return f"a template must have the fields {', '.join(sorted(known))}, and no other"
    for name in ("name", "end", "system"):
        if not isinstance(fields.get(name, ""), str):
            return f"{name} = {fields[name]!r}: must be a text"
    controls, turns, end = fields["controls"], fields["turns"], fields["end"]
    if not (isinstance(controls, list) and controls and all(isinstance(one, str) and one for one in controls)):
        return f"controls = {controls!r}: must be names of control tokens"
    if not isinstance(turns, dict) or ASSISTANT not in turns:
        return "turns: must have a turn of the assistant, which is what a model learns"
    if set(turns) != set(ROLES):
        return f"turns: must have exactly the roles {', '.join(ROLES)}"
    for role, parts in turns.items():
        if not (isinstance(parts, list) and len(parts) == 2 and all(isinstance(part, str) for part in parts)):
            return f"turns.{role} = {parts!r}: must be the text before and the text after a message"
    if end not in controls or not turns[ASSISTANT][1].startswith(end):
        return f"end = {end!r}: must be one of controls, and what follows the content in turns.{ASSISTANT}"
    return ""
