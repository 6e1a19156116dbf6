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

import functools
import sys
from typing import Any

from gptjax.command_line import cli
from gptjax.command_line.flags import Flags, given_run
from gptjax.command_line.runtime import use_compilation_cache
from gptjax.command_line.typed_lines import lines
from gptjax.config import ConfigError
from gptjax.conversation import Renderer, template_of
from gptjax.display.terminal import Console
from gptjax.inference.chat import Chat
from gptjax.inference.chat_terminal import CHANGED, Adapters, Terminal, check_settings
from gptjax.inference.decode import WEIGHTS as WEIGHT_TYPES
from gptjax.inference.devices import decoding_mesh
from gptjax.inference.text import check_text
from gptjax.runs.trained_model import load_trained_model

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
# The flags of the settings that can change during a conversation.
SETTINGS = dict(zip(CHANGED, (TEMPERATURE, TOP_P, TOP_K, MIN_P, REPETITION_PENALTY, MAX_NEW_TOKENS, SEED), strict=True))


def main(argv: list[str]) -> None:
    del argv
    with cli.fields_named_by_flags({name: name for name in (*SETTINGS, "system")}):
        talk()


def talk() -> None:
    notes, output = Console(stderr=True, soft_wrap=True), Console(soft_wrap=True)
    given_run(WORKDIR)
    settings = {name: flag.value for name, flag in SETTINGS.items()}
    check_settings(settings)
    check_text("system", SYSTEM.value)
    use_compilation_cache()
    chat, title, adapters = load_chat()
    conversation = Terminal(chat, settings, title, output, notes, adapters)
    conversation.show_settings("")
    notes.print("type a message; /help lists commands, Ctrl-D ends", style="dim")
    for line in lines(output):
        if not sys.stdin.isatty():
            notes.print(f"> {line}", style="dim")
        try:
            conversation.take(line)
        except KeyboardInterrupt:  # the second Ctrl-C in a row, which must not end the conversation
            notes.print()
        if conversation.ended:
            break


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
            f"--workdir={WORKDIR.value}: the run was not trained on conversations: train it on some with "
            f"configs/instructions.py:{WORKDIR.value}, or let gptjax sample continue a text"
        )
    renderer = Renderer(template_of(template, "template"), model.tokenizer)
    options: dict[str, Any] = {"end_id": renderer.end_id, "weights": WEIGHTS.value, "batch_size": 1}
    adapters = Adapters(list(loaded), functools.cache(lambda name: model.generator(loaded[name], **options)))
    generator = adapters.generator(adapters.names[0]) if loaded else model.generator(**options)
    title = (
        f"{WORKDIR.value}: step {model.metadata['step']:,}, {model.num_parameters:,} parameters, {generator.weights}, "
        f"template {renderer.template.name}"
    )
    return Chat(generator, renderer, SYSTEM.value or renderer.template.system), title, adapters


if __name__ == "__main__":
    cli.run(main, flags)
