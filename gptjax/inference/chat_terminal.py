"""What a person can say in `gptjax chat`: messages, and commands such as /undo, and what is shown for them."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from typing import Any

from gptjax.config import ConfigError, suggestion
from gptjax.conversation import BadConversation, checked
from gptjax.conversation.messages import ASSISTANT
from gptjax.display.formatting import counted
from gptjax.display.terminal import Console, write_raw
from gptjax.files import write_aside
from gptjax.files.paths import output_file
from gptjax.inference.chat import Chat
from gptjax.inference.generate import Generator
from gptjax.inference.sampling import make_sampling
from gptjax.inference.text import check_text

# The settings that /NAME VALUE changes during a conversation, and the type of their values.
CHANGED: dict[str, type] = {
    "temperature": float,
    "top_p": float,
    "top_k": int,
    "min_p": float,
    "repetition_penalty": float,
    "max_new_tokens": int,
    "seed": int,
}
OTHER_NAMES = {"exit": "quit", "reset": "clear", "?": "help", "": "help"}


@dataclasses.dataclass
class Adapters:
    """The adapters of a conversation.

    Attributes:
      names: as the flags give them; the first answers at the beginning.
      generator: from a name to the model with this adapter; a model that was made is kept.
    """

    names: list[str]
    generator: Callable[[str], Generator]


def check_settings(settings: dict[str, Any]) -> None:
    """Raises ConfigError for a value that is out of its range."""
    drawing = {name: value for name, value in settings.items() if name not in ("max_new_tokens", "seed")}
    make_sampling([settings["seed"]], num_tokens=1, **drawing)
    if settings["max_new_tokens"] < 1:
        raise ConfigError(f"max_new_tokens = {settings['max_new_tokens']}: must be at least 1")


class Terminal:
    """Does what the lines of a user say: a message, or a command such as /undo.

    Attributes:
      ended: whether the user has ended the conversation.
    """

    def __init__(
        self, chat: Chat, settings: dict[str, Any], title: str, output: Console, notes: Console, adapters: Adapters
    ):
        self.chat, self.settings, self.ended = chat, settings, False
        self._adapters, self._adapter = adapters, next(iter(adapters.names), "")
        self._title, self._output, self._notes = title, output, notes
        self._answers = 0
        self.commands: dict[str, tuple[str, str, Callable[[str], None]]] = {
            "help": ("", "list the commands", self.help),
            "clear": ("", "begin a new conversation", self.clear),
            "system": ("TEXT", "say how to answer (none: nothing), and begin anew; without TEXT, show it", self.system),
            "history": ("", "show the conversation", self.history),
            "undo": ("", "take back the last message and its answer", self.undo),
            "retry": ("", "another answer to the last message", self.retry),
            "save": ("FILE", "write the conversation as a line of JSON, as gptjax prepare reads it", self.save),
            "settings": ("", "show the settings", self.show_settings),
            "adapter": ("NAME", "let another adapter of --adapter answer; without NAME, list them", self.adapter),
            **{name: ("VALUE", f"set {name}", self._setter(name)) for name in CHANGED},
            "quit": ("", "end", self.quit),
        }

    def take(self, line: str) -> None:
        """Answers a message, or follows a command; errors are shown."""
        try:
            check_text("message", line)
            if line.startswith("/") and not line.startswith("//"):
                self._command(line[1:].strip())
            elif line.strip():
                self.ask(line.removeprefix("/") if line.startswith("//") else line)
        except (ConfigError, BadConversation) as error:
            self._notes.print(str(error), style="red", markup=False)

    def ask(self, message: str) -> None:
        seed = (self.settings["seed"] + self._answers) % 2**32
        self._answers += 1
        before = len(self.chat.messages)
        stream = self.chat.answer(message, **{**self.settings, "seed": seed})
        reason = "eos"
        try:
            while True:
                write_raw(self._output, next(stream))
        except StopIteration as end:
            reason = end.value.finish_reason
        except KeyboardInterrupt:
            stream.close()
            reason = "interrupt"
        write_raw(self._output, "\n")
        if reason == "interrupt" and len(self.chat.messages) == before:
            self._say("Ctrl-C came before the answer: the message is taken back")
        elif reason != "eos":
            limit = f"the limit of {counted(self.settings['max_new_tokens'], 'token')} (/max_new_tokens changes it)"
            why = {"max_new_tokens": limit, "context": "the end of the context", "interrupt": "Ctrl-C"}[reason]
            self._say(f"the answer was cut off by {why}")
        if self.chat.forgotten:
            self._say(
                f"the context is full: the model did not read the first {counted(self.chat.forgotten, 'message')} "
                "(/clear begins anew)"
            )

    # --- Commands

    def help(self, rest: str) -> None:
        width = max(len(f"/{name} {argument}") for name, (argument, *_) in self.commands.items())
        for name, (argument, what, _) in self.commands.items():
            self._say(f"{f'/{name} {argument}':<{width}}  {what}")
        self._say("a line that ends with \\ goes on in the next; a message that begins with / is typed with //")
        self._say("Ctrl-C ends an answer, Ctrl-D the conversation")

    def clear(self, rest: str) -> None:
        self.chat.begin(self.chat.system)
        self._say("a new conversation")

    def system(self, rest: str) -> None:
        if rest:
            self.chat.begin("" if rest == "none" else rest)
        self._say(f"system: {self.chat.system or 'none'}" + "; a new conversation" * bool(rest))

    def history(self, rest: str) -> None:
        for role, content in self.chat.whole():
            self._say(f"{role}: {content}")
        self._say(f"{counted(self.chat.tokens(), 'token')} of {self.chat.context}")

    def undo(self, rest: str) -> None:
        question = self.chat.undo()
        self._say("there is nothing to take back" if question is None else f"taken back: {question}")

    def retry(self, rest: str) -> None:
        question = self.chat.undo()
        if question is None:
            raise ConfigError("/retry: there is no message yet")
        self.ask(question)

    def save(self, rest: str) -> None:
        if not rest:
            raise ConfigError("/save needs the name of a file")
        path = output_file(rest, "/save")
        if path.exists():
            raise ConfigError(f"/save {rest}: exists; choose another name")
        messages = checked([one for one in self.chat.whole() if one.role != ASSISTANT or one.content.strip()])
        with write_aside(path) as file:
            row = {"messages": [message._asdict() for message in messages]}
            file.write((json.dumps(row, ensure_ascii=False) + "\n").encode())
        self._say(f"saved {counted(len(messages), 'message')} to {path}")

    def adapter(self, rest: str) -> None:
        names = self._adapters.names
        if not names:
            raise ConfigError("/adapter: there is none; give gptjax chat --adapter=NAME, once or several times")
        if rest and rest not in names:
            raise ConfigError(f"/adapter {rest}: must be one of {', '.join(names)}{suggestion(rest, names)}")
        if rest:
            self.chat.generator, self._adapter = self._adapters.generator(rest), rest
        self._say(", ".join(f"{name} (answers)" if name == self._adapter else name for name in names))

    def show_settings(self, rest: str) -> None:
        adapter = f", adapter {self._adapter}" if self._adapter else ""
        self._say(f"{self._title}{adapter}, context {self.chat.context} tokens")
        self._say(", ".join(f"{name} {value}" for name, value in self.settings.items()))
        self._say(f"system: {self.chat.system or 'none'}")

    def quit(self, rest: str) -> None:
        self.ended = True

    def _setter(self, name: str) -> Callable[[str], None]:
        def change(rest: str) -> None:
            kind = CHANGED[name]
            if rest:
                try:
                    changed = {**self.settings, name: kind(rest)}
                except ValueError:
                    raise ConfigError(f"/{name} {rest}: must be a number") from None
                check_settings(changed)
                self.settings = changed
            self._say(f"{name} {self.settings[name]}")

        return change

    def _command(self, line: str) -> None:
        first, _, rest = line.partition(" ")
        if "=" in first:  # /temperature=0.5
            first, _, rest = line.partition("=")
        name = first.lower()
        name = OTHER_NAMES.get(name, name)
        if name not in self.commands:
            meant = suggestion(f"/{name}", [f"/{known}" for known in self.commands])
            raise ConfigError(f"/{first}: no such command{meant}; /help lists them")
        self.commands[name][2](rest.strip())

    def _say(self, text: str) -> None:
        self._notes.print(text, style="dim", markup=False)
