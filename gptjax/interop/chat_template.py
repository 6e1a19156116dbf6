"""Recognizes what a chat template of `transformers` writes around messages, as data (conversation/template.py).

Such a template is a program in Jinja. It is run in Jinja's sandbox, for a few short conversations, some seconds at most
and with limited memory; what it writes is compared with what the data would write. A template that writes something
else, because it changes messages, merges them or looks ahead, is not taken.
"""

from __future__ import annotations

import contextlib
import re
import signal
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import jinja2
import jinja2.ext
import jinja2.sandbox

from gptjax.conversation import Template
from gptjax.conversation.messages import ASSISTANT, ROLES, SYSTEM, TOOL, USER, Message
from gptjax.interop.tokenizer_json import control_names
from gptjax.tokenizer import Tokenizer

SECONDS = 5  # for all conversations
MEMORY = 1 << 28  # bytes: the sandbox bounds loops, but not the length of a text, which a loop can double
LONGEST = 1 << 18  # characters of a template
# Conversations by roles; the last one of the assistant is missing where an answer is asked for.
TRIED = ((USER,), (USER, ASSISTANT), (USER, ASSISTANT, USER), (USER, ASSISTANT, USER, ASSISTANT, USER))
WORDS = {SYSTEM: "Sqx", USER: "Uqx", ASSISTANT: "Aqx", TOOL: "Tqx"}  # contents that no template has


class _Generation(jinja2.ext.Extension):
    """The block of `transformers` around what the assistant writes: here, only its content."""

    tags = frozenset({"generation"})  # type: ignore[assignment]

    def parse(self, parser: Any) -> Any:
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


class _Unlike(Exception):
    """What a template writes is not of the form of the data."""


def recognized(source: str, tokenizer: Tokenizer) -> tuple[Template | None, list[str]]:
    """The template as data, and what the user should know; (None, why) if it cannot be recognized.

    Args:
      source: the template in Jinja.
      tokenizer: of the same folder, whose control tokens may occur in the template.
    """
    try:
        if len(source) > LONGEST:
            raise _Unlike("it is too long")
        with _time_limit(), _memory_limit():
            theirs = _Theirs(source, tokenizer)
            made = _inferred(theirs)
            notes = _compared(theirs, made)
    except _Unlike as error:
        return None, [f"the folder's chat template is not recognized: {error}"]
    except Exception as error:  # whatever a program of others may raise
        return None, [f"the folder's chat template is not recognized: it stops with {type(error).__name__}"]
    return made, notes


class _Theirs:
    """Runs a template.

    Attributes:
      controls: the names of control tokens that it writes.
      begins: whether it writes the begin token first.
    """

    def __init__(self, source: str, tokenizer: Tokenizer):
        environment = jinja2.sandbox.ImmutableSandboxedEnvironment(
            trim_blocks=True, lstrip_blocks=True, extensions=[_Generation, jinja2.ext.loopcontrols]
        )
        environment.globals |= {"raise_exception": _raise, "strftime_now": lambda pattern: "1 January 2000"}
        names = control_names(tokenizer)
        self._tokens = {
            f"{name}_token": "" if i is None else names[i]
            for name, i in (("bos", tokenizer.bos_id), ("eos", tokenizer.eos_id), ("pad", tokenizer.pad_id))
        }
        self._template = environment.from_string(source)
        self._known = sorted({*names.values()}, key=len, reverse=True)
        self.controls: list[str] = []
        self.begins = False

    def write(self, messages: Sequence[Message], asks: bool = False) -> str:
        """The text of a conversation, without the begin token. asks: also what comes before an answer."""
        rows = [message._asdict() for message in messages]
        text = self._template.render(messages=rows, add_generation_prompt=asks, **self._tokens)
        found = re.findall("|".join(map(re.escape, self._known)), text)
        self.begins = bool(self._tokens["bos_token"]) and text.startswith(self._tokens["bos_token"])
        text = text.removeprefix(self._tokens["bos_token"]) if self.begins else text
        self.controls = list(dict.fromkeys([*self.controls, *found[int(self.begins) :]]))
        return text


def _inferred(theirs: _Theirs) -> Template:
    """The data that would write the same, if any does."""

    def said(*roles: str) -> list[Message]:
        return [Message(role, WORDS[role]) for role in roles]

    user, answer = WORDS[USER], WORDS[ASSISTANT]
    first, after_user = _around(theirs.write(said(USER)), user)
    _, asking = _around(theirs.write(said(USER), asks=True), user)
    before_answer = _rest(asking, after_user)
    whole = theirs.write(said(USER, ASSISTANT, USER, ASSISTANT)).split(answer)
    if len(whole) != 3:
        raise _Unlike("it changes what the assistant wrote")
    between, _ = _around(whole[1], user)
    before_user = _rest(between, whole[2])
    turns = {USER: (before_user, after_user), ASSISTANT: (before_answer, whole[2])}
    default = first.removesuffix(before_user)
    before_system, rest = _around(theirs.write(said(SYSTEM, USER)), WORDS[SYSTEM])
    turns[SYSTEM] = before_system, _around(rest, user)[0].removesuffix(before_user)
    turns[TOOL] = _tool(theirs, said, turns)
    end = next((name for name in theirs.controls if whole[2].startswith(name)), None)
    if end is None:
        raise _Unlike("no control token ends an answer")
    opened, closed = turns[SYSTEM]
    system = default[len(opened) : len(default) - len(closed)] if default else ""
    if default != (opened + system + closed if system else ""):
        raise _Unlike("it begins with a text that is no system message")
    ordered = {role: turns[role] for role in ROLES}
    used = "".join(part for turn in ordered.values() for part in turn)
    controls = tuple(name for name in theirs.controls if name in used)
    return Template("imported", controls, ordered, end, system)


def _tool(theirs: _Theirs, said: Any, turns: dict[str, tuple[str, str]]) -> tuple[str, str]:
    """What is around the result of a tool; as around a user's message, if the template knows no tools."""
    try:
        text = theirs.write(said(USER, ASSISTANT, TOOL, ASSISTANT))
        between, rest = _around(text, WORDS[TOOL])
        after = _around(rest, WORDS[ASSISTANT])[0]
        before_answer, after_answer = turns[ASSISTANT]
        written = _around(between, WORDS[ASSISTANT])[1]
        if not after.endswith(before_answer):
            raise _Unlike("")
        return _rest(written, after_answer), after.removesuffix(before_answer)
    except Exception:
        return turns[USER]


def _compared(theirs: _Theirs, made: Template) -> list[str]:
    """What the user should know. Raises _Unlike if the two write different texts."""
    trims = False
    for roles in TRIED:
        for begin in ((), (SYSTEM,)):
            for number, text in enumerate(("Hi", "a b\n\nc {{ x }} é", "  spaces around \n")):
                messages = [Message(role, text) for role in (*begin, *roles)]
                asks = roles[-1] == USER
                expected = theirs.write(messages, asks)
                if expected == _text(made, messages, asks):
                    continue
                trimmed = [Message(role, text.strip()) for role, text in messages]
                if number < 2 or expected != _text(made, trimmed, asks):
                    raise _Unlike("it writes more than a text before and after each message")
                trims = True
    notes = [] if theirs.begins else ["it writes no begin token, which gptjax puts before each conversation"]
    return [*notes, *(["it removes spaces around messages, which gptjax does not"] if trims else [])]


def _text(template: Template, messages: Sequence[Message], asks: bool) -> str:
    """What the data writes."""
    if template.system and messages[0].role != SYSTEM:
        messages = [Message(SYSTEM, template.system), *messages]
    parts = [template.turns[role][0] + text + template.turns[role][1] for role, text in messages]
    return "".join(parts) + (template.turns[ASSISTANT][0] if asks else "")


def _around(text: str, word: str) -> tuple[str, str]:
    before, found, after = text.partition(word)
    if not found or word in after:
        raise _Unlike("it leaves out or repeats messages")
    return before, after


def _rest(text: str, begin: str) -> str:
    if not text.startswith(begin):
        raise _Unlike("what it writes around a message depends on the others")
    return text.removeprefix(begin)


def _raise(message: str = "") -> None:
    raise jinja2.TemplateError(message)


@contextlib.contextmanager
def _time_limit() -> Iterator[None]:
    """Stops the block after SECONDS, in the main thread of a system that can."""
    if threading.current_thread() is not threading.main_thread() or not hasattr(signal, "setitimer"):
        yield
        return

    def stop(*_: Any) -> None:
        raise TimeoutError

    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, SECONDS)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


@contextlib.contextmanager
def _memory_limit() -> Iterator[None]:
    """Lets the process grow by MEMORY at most, on a system that can; more raises MemoryError."""
    statm = Path("/proc/self/statm")
    if not statm.is_file():
        yield
        return
    import resource  # not on every system

    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    wanted = int(statm.read_text().split()[0]) * resource.getpagesize() + MEMORY
    limits = [limit for limit in (soft, wanted) if limit != resource.RLIM_INFINITY]
    resource.setrlimit(resource.RLIMIT_AS, (min(limits), hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))
