"""Talk with a model that was trained on conversations: python -m gptjax.chat --workdir=runs/instructions

  … --system='Answer in one sentence.' --temperature=0.5      how it should answer
  … --checkpoint=best --max_new_tokens=100                    which parameters; the longest answer
  … --adapter=poems --adapter=runs/letters                    adapters over the model; /adapter NAME changes to another

Type a message and press Enter; a line that ends with \\ goes on in the next. Ctrl-C ends an answer, Ctrl-D or /quit
ends the conversation, and /help lists the other commands. A message that begins with / is typed with //.

The model reads the whole conversation before each answer. When its context is full, the oldest turns are left out, and
a line says so. An answer ends where the model ends its turn. Answers go to stdout, everything else to stderr, so that
the command also works in a pipe: one message per line, which stderr repeats.
"""

from __future__ import annotations

import dataclasses
import functools
import io
import json
import sys
from collections.abc import Callable, Iterator
from typing import Any

from rich.text import Text

from gptjax import cli
from gptjax.command_flags import Flags
from gptjax.config import ConfigError, suggestion
from gptjax.conversation import BadConversation, Renderer, checked, template_of
from gptjax.conversation.messages import ASSISTANT
from gptjax.files import write_aside
from gptjax.formatting import counted
from gptjax.inference.chat import Chat
from gptjax.inference.decode import WEIGHTS as WEIGHT_TYPES
from gptjax.inference.devices import decoding_mesh
from gptjax.inference.generate import Generator
from gptjax.inference.sampling import make_sampling
from gptjax.inference.text import check_text
from gptjax.paths import existing_run, output_file
from gptjax.runtime import use_compilation_cache
from gptjax.terminal import Console, write_raw
from gptjax.trained_model import load_trained_model

flags = Flags()
WORKDIR, CHECKPOINT, EMA, OWN_FUNCTIONS = flags.define_run()
SYSTEM = flags.DEFINE_string("system", "", "A message that comes first and says how to answer; '': the template's own.")
MAX_NEW_TOKENS, *DRAWING = flags.define_drawing("an answer", temperature=0.7)
TEMPERATURE, TOP_K, TOP_P, MIN_P, REPETITION_PENALTY = DRAWING
SEED = flags.DEFINE_integer("seed", 0, "Seed of the first answer; each further answer uses the next number.")
WEIGHTS = flags.DEFINE_enum(
    "weights", None, WEIGHT_TYPES, "The type in which matrices are stored and multiplied (see gptjax sample --help)."
)
MESH = flags.define_mesh()
ADAPTER = flags.DEFINE_multi_string(
    "adapter",
    [],
    "An adapter over the model (see gptjax adapter): a folder in PEFT's layout, a run that trains adapters, or the "
    "name of one of these in the folder adapters of --workdir. May be given several times: the first one answers, and "
    "/adapter NAME changes to another.",
)
# Flags that /NAME VALUE changes during a conversation, and the type of their values.
CHANGED: dict[str, tuple[Any, type]] = {
    "temperature": (TEMPERATURE, float),
    "top_p": (TOP_P, float),
    "top_k": (TOP_K, int),
    "min_p": (MIN_P, float),
    "repetition_penalty": (REPETITION_PENALTY, float),
    "max_new_tokens": (MAX_NEW_TOKENS, int),
    "seed": (SEED, int),
}


def main(argv: list[str]) -> None:
    del argv
    with cli.fields_named_by_flags({name: name for name in (*CHANGED, "system")}):
        talk()


def talk() -> None:
    notes, output = Console(stderr=True, soft_wrap=True), Console(soft_wrap=True)
    if WORKDIR.value is None:
        raise ConfigError("--workdir is missing: must be the folder of a training run (see --help)")
    settings = {name: flag.value for name, (flag, _) in CHANGED.items()}
    check_settings(settings)
    check_text("system", SYSTEM.value)
    existing_run(WORKDIR.value, "--workdir")
    use_compilation_cache()
    chat, title, adapters = load_chat()
    conversation = Terminal(chat, settings, title, output, notes, adapters)
    conversation.show_settings("")
    notes.print("type a message; /help lists commands, Ctrl-D ends", style="dim")
    for line in lines(output):
        if not sys.stdin.isatty():
            notes.print(f"> {line}", style="dim")
        conversation.take(line)
        if conversation.ended:
            break


def check_settings(settings: dict[str, Any]) -> None:
    """Raises ConfigError for a value that is out of its range."""
    drawing = {name: value for name, value in settings.items() if name not in ("max_new_tokens", "seed")}
    make_sampling([settings["seed"]], num_tokens=1, **drawing)
    if settings["max_new_tokens"] < 1:
        raise ConfigError(f"max_new_tokens = {settings['max_new_tokens']}: must be at least 1")


def load_chat() -> tuple[Chat, str, Adapters]:
    """A new conversation with the run's model, a line about the run, and its adapters.

    Raises:
      ConfigError: neither the run nor an adapter was trained on conversations, or files do not belong together.
    """
    mesh = decoding_mesh(MESH.value)
    model = load_trained_model(WORKDIR.value, CHECKPOINT.value, EMA.value, OWN_FUNCTIONS.value, mesh)
    loaded, fingerprint = model.adapters(ADAPTER.value), model.fingerprint
    templates = [fingerprint.get("template"), *(adapter.template for adapter in loaded.values())]
    if not (template := next(filter(None, templates), None)):
        raise ConfigError(
            f"--workdir={WORKDIR.value}: the run was trained on {fingerprint.get('windows', 'text')} data, not on "
            "conversations: fine-tune it by configs/instructions.py, or let gptjax sample continue a text"
        )
    renderer = Renderer(template_of(template, "template"), model.tokenizer)
    options: dict[str, Any] = {"end_id": renderer.end_id, "weights": WEIGHTS.value}
    adapters = Adapters(list(loaded), functools.cache(lambda name: model.generator(loaded[name], **options)))
    generator = adapters.generator(adapters.names[0]) if loaded else model.generator(**options)
    title = (
        f"{WORKDIR.value}: step {model.metadata['step']:,}, {model.num_parameters:,} parameters, {generator.weights}, "
        f"template {renderer.template.name}"
    )
    return Chat(generator, renderer, SYSTEM.value or renderer.template.system), title, adapters


@dataclasses.dataclass
class Adapters:
    """The adapters of a conversation.

    Attributes:
      names: as the flags give them; the first answers at the beginning.
      generator: from a name to the model with this adapter; a model that was made is kept.
    """

    names: list[str]
    generator: Callable[[str], Generator]


def lines(output: Console) -> Iterator[str]:
    """Yields what the user types, or the lines of standard input; lines that end with \\ are joined."""
    if isinstance(sys.stdin, io.TextIOWrapper):
        sys.stdin.reconfigure(errors="surrogateescape")  # bytes that are not text are refused later
    whole = ""
    while True:
        try:
            line = output.input(Text("… " if whole else "> ", "bold green")) if sys.stdin.isatty() else input()
        except EOFError:
            if sys.stdin.isatty():
                output.print()
            return
        except KeyboardInterrupt:
            output.print()
            whole = ""
            continue
        if line.endswith("\\"):
            whole += line[:-1] + "\n"
        else:
            yield whole + line
            whole = ""


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
            "system": ("TEXT", "say how to answer, and begin anew; without TEXT, show it", self.system),
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
                name, _, rest = line[1:].partition(" ")
                self._command({"exit": "quit", "reset": "clear", "?": "help"}.get(name, name), rest.strip())
            elif line.strip():
                self.ask(line.removeprefix("/") if line.startswith("//") else line)
        except (ConfigError, BadConversation) as error:
            self._notes.print(str(error), style="red", markup=False)

    def ask(self, message: str) -> None:
        seed = (self.settings["seed"] + self._answers) % 2**32
        self._answers += 1
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
        if reason != "eos":
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
        self._say("a line that ends with \\ goes on in the next; Ctrl-C ends an answer")

    def clear(self, rest: str) -> None:
        self.chat.messages = []
        self._say("a new conversation")

    def system(self, rest: str) -> None:
        if rest:
            self.chat.system, self.chat.messages = rest, []
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
            kind = CHANGED[name][1]
            if rest:
                try:
                    changed = {**self.settings, name: kind(rest)}
                except ValueError:
                    raise ConfigError(f"/{name} {rest}: must be a number") from None
                check_settings(changed)
                self.settings = changed
            self._say(f"{name} {self.settings[name]}")

        return change

    def _command(self, name: str, rest: str) -> None:
        if name not in self.commands:
            raise ConfigError(f"/{name}: no such command{suggestion(name, self.commands)}; /help lists them")
        self.commands[name][2](rest)

    def _say(self, text: str) -> None:
        self._notes.print(text, style="dim", markup=False)


if __name__ == "__main__":
    cli.run(main, flags)
