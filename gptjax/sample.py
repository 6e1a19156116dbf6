"""Text from a trained model: python -m gptjax.sample --workdir=runs/mine --prompt='def main('

  … --num_samples=3 --temperature=1.0 --top_k=50            three continuations, from seeds 0, 1 and 2
  … --prompts_file=prompts.txt --json=samples.json          one prompt per line; results with log-probabilities
  … --checkpoint=best --stop='\\n\\n' --escapes --stream      the best checkpoint; up to an empty line; shown live
  … --num_beams=4 --num_samples=2                            the two best texts of a beam search, without sampling
  … --prompt=-                                              the prompt from standard input
  … --adapter=poems --adapter=runs/letters                  with one adapter over the model, then with another

A prompt is the beginning of a document, as in training; with --nobegin it is a piece from inside a document. Without a
prompt, in a terminal, you type prompts and read the continuations; Ctrl-D ends. The text goes to stdout, all messages
go to stderr. A continuation depends only on its prompt and seed. It ends at the end-of-text token, at a stop string,
after --max_new_tokens, or when the model's context is full; a message says which.
"""

from __future__ import annotations

import dataclasses
import io
import json
import reprlib
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import jax
from rich.text import Text

from gptjax.command_line import cli
from gptjax.command_line.flags import Flags, given_run
from gptjax.command_line.runtime import use_compilation_cache
from gptjax.config import ConfigError
from gptjax.display.formatting import counted
from gptjax.display.terminal import Console, set_up_streams, write_raw
from gptjax.files import write_aside
from gptjax.files.paths import local_path, output_file
from gptjax.inference.completion import FINISH_REASONS, Completion
from gptjax.inference.decode import WEIGHTS as WEIGHT_TYPES
from gptjax.inference.devices import decoding_mesh
from gptjax.inference.generate import Generator
from gptjax.inference.prompts import decoded, read_prompts
from gptjax.inference.sampling import make_sampling
from gptjax.inference.text import check_text, stop_strings
from gptjax.inference.timing import Timing
from gptjax.runs.trained_model import TrainedModel, load_trained_model
from gptjax.training.checkpoints.format import means_average
from gptjax.training.checkpoints.run_metadata import code_changes

flags = Flags()
WORKDIR, CHECKPOINT, EMA, OWN_FUNCTIONS = flags.define_run()
PROMPT = flags.DEFINE_string("prompt", None, "The text to continue; '': start a new document; -: read stdin.")
BEGIN = flags.DEFINE_bool(
    "begin", True, "A prompt is the beginning of a document, as in training; --nobegin: it is from inside a document."
)
PROMPTS_FILE = flags.DEFINE_string(
    "prompts_file", None, "A file of prompts, one per line; in a .jsonl file, one JSON string per line."
)
NUM_SAMPLES = flags.DEFINE_integer("num_samples", 1, "Number of continuations per prompt.", 1)
MAX_NEW_TOKENS, *DRAWING = flags.define_drawing("a continuation", temperature=0.8)
TEMPERATURE, TOP_K, TOP_P, MIN_P, REPETITION_PENALTY = DRAWING
NUM_BEAMS = flags.DEFINE_integer(
    "num_beams",
    0,
    "Beam search instead of drawing: keep this many beginnings of a text at a time; 1: greedy; 0: off.",
    0,
)
LENGTH_PENALTY = flags.DEFINE_float(
    "length_penalty", 0.6, "Beam search: larger values prefer longer texts; 0: only their probability counts."
)
STOP = flags.DEFINE_multi_string("stop", [], "End the text before this string; may be given several times.")
ESCAPES = flags.DEFINE_bool(
    "escapes",
    False,
    "Read \\n in --prompt and --stop as a newline, \\t as a tab, \\\\ as a backslash and so on, as Python does.",
)
SEED = flags.DEFINE_integer(
    "seed", 0, "Seed of the first continuation of each prompt; the others use the next numbers."
)
BATCH_SIZE = flags.DEFINE_integer("batch_size", 32, "Number of continuations to compute at the same time.", 1)
WEIGHTS = flags.DEFINE_enum(
    "weights",
    None,
    WEIGHT_TYPES,
    "The type in which matrices are stored and multiplied. bfloat16 and int8 need half and a quarter of the memory of "
    "float32. On a CPU, int8 is the fastest, and bfloat16 is slower than float32 for one text and faster for eight. "
    "Default: the type in which the model computes.",
)
MESH = flags.define_mesh()
SEARCH_FLAGS = (NUM_BEAMS, LENGTH_PENALTY)
DRAWING_FLAGS = (*DRAWING, STOP, SEED)
GENERATION_FLAGS = (MAX_NEW_TOKENS, *DRAWING_FLAGS, *SEARCH_FLAGS)
ADAPTER = flags.DEFINE_multi_string(
    "adapter",
    [],
    "An adapter over the model (see gptjax adapter): a folder in PEFT's layout, a run that trains adapters, or the "
    "name of one of these in the folder adapters of --workdir. May be given several times: each continues the prompts.",
)
STREAM = flags.DEFINE_bool("stream", False, "Show the text while it is generated, one continuation after another.")
JSON = flags.DEFINE_string("json", None, "Write the completions, with tokens and log-probabilities, to this file.")


def main(argv: list[str]) -> None:
    del argv
    with cli.fields_named_by_flags({flag.name: flag.name for flag in GENERATION_FLAGS}):
        write_text()


def write_text() -> None:
    notes, output = Console(stderr=True, soft_wrap=True), Console(soft_wrap=True)
    given_run(WORKDIR)
    json_path = output_file(JSON.value, "--json") if JSON.value is not None else None
    if json_path:  # the file must be written even if stdout is closed early
        set_up_streams(outlive=True)
    check_values()
    prompts = chosen_prompts()
    use_compilation_cache()
    run = load_run(notes)
    timing = Timing()
    completions: list[tuple[str | None, Completion]] = []
    names: list[str | None] = list(ADAPTER.value or ())
    for name in names or [None]:
        generator = make_generator(run, name, rows_at_once(prompts), notes)
        if prompts is None:
            return converse(generator, output, notes)
        if name is not None and len(ADAPTER.value) > 1:
            write_raw(output, f"═══ {name}\n", "dim")
        of_adapter = continue_prompts(generator, prompts, output, timing)
        completions += [(name, completion) for completion in of_adapter]
    say(notes, [completion for _, completion in completions], timing)
    if json_path:
        is_average = means_average(run.metadata, EMA.value)
        write_json(json_path, completions, timing, is_average, generator.weights)
        notes.print(f"{counted(len(completions), 'completion')} in {JSON.value}", style="dim")


def continue_prompts(generator: Generator, prompts: list[str], output: Console, timing: Timing) -> list[Completion]:
    """Continues all prompts, and prints the completions."""
    completions: list[Completion]
    if NUM_BEAMS.value:
        completions = generator.search(prompts, num_samples=NUM_SAMPLES.value, timing=timing, **search_options())
        show(output, completions, generator.separator)
    elif STREAM.value:
        completions = []
        for prompt, seed in ((prompt, SEED.value + j) for prompt in prompts for j in range(NUM_SAMPLES.value)):
            begin(output, prompt + generator.separator, is_first=not completions)
            completions.append(show_stream(generator, prompt, seed, output, timing))
    else:
        settings = dict(num_samples=NUM_SAMPLES.value, seeds=SEED.value, **options())
        completions = generator.generate(prompts, timing=timing, **settings)
        show(output, completions, generator.separator)
    return completions


def check_values() -> None:
    """Raises ConfigError for values that are invalid for every model, before a model is loaded."""
    if not (CHECKPOINT.value in ("latest", "best") or CHECKPOINT.value.isdecimal()):
        raise ConfigError(f"--checkpoint={CHECKPOINT.value}: must be latest, best or the number of a step")
    last = SEED.value + NUM_SAMPLES.value - 1
    if last >= 2**32 > SEED.value:
        raise ConfigError(f"--num_samples={NUM_SAMPLES.value}: the last seed would be {last}: must be below 2^32")
    for flag in (*DRAWING_FLAGS, STREAM) if NUM_BEAMS.value else (LENGTH_PENALTY,):
        if flag.present:
            why = "must not be given together with" if NUM_BEAMS.value else "must not be given without"
            raise ConfigError(f"--{flag.name}={flag.value}: {why} --num_beams, which searches instead of drawing")
    if len(ADAPTER.value) > 1 and PROMPT.value is None and not PROMPTS_FILE.value:
        raise ConfigError(f"--adapter={ADAPTER.value[1]}: a conversation has one adapter; give --prompt for several")
    given = options()
    stop_strings(given["stop"])
    drawing = {name: given[name] for name in ("temperature", "top_k", "top_p", "min_p", "repetition_penalty")}
    make_sampling([SEED.value], num_tokens=1, **drawing)


def options() -> dict:
    """Returns the options that `generate` and `stream` share."""
    return dict(
        begin=BEGIN.value,
        max_new_tokens=MAX_NEW_TOKENS.value,
        stop=[as_typed("--stop", stop) for stop in STOP.value],
        temperature=TEMPERATURE.value,
        top_k=TOP_K.value,
        top_p=TOP_P.value,
        min_p=MIN_P.value,
        repetition_penalty=REPETITION_PENALTY.value,
    )


def search_options() -> dict:
    """Returns the options of a beam search."""
    return dict(
        begin=BEGIN.value,
        max_new_tokens=MAX_NEW_TOKENS.value,
        num_beams=NUM_BEAMS.value,
        length_penalty=LENGTH_PENALTY.value,
    )


def chosen_prompts() -> list[str] | None:
    """Returns the prompts that the flags give, or None if the user will type them."""
    if PROMPT.value is not None and PROMPTS_FILE.value:
        raise ConfigError(f"--prompts_file={PROMPTS_FILE.value}: must not be given together with --prompt")
    if PROMPTS_FILE.value:
        return read_prompts(local_path(PROMPTS_FILE.value, "--prompts_file"))
    if PROMPT.value == "-":
        return [decoded("--prompt=-: standard input", sys.stdin.buffer.read())]
    if PROMPT.value is None:
        if not sys.stdin.isatty():
            raise ConfigError("--prompt or --prompts_file is required when stdin is not a terminal")
        return None
    check_text("--prompt", PROMPT.value)
    return [as_typed("--prompt", PROMPT.value)]


def as_typed(flag: str, text: str) -> str:
    return cli.unescaped(flag, text) if ESCAPES.value else text


def load_run(notes: Console) -> TrainedModel:
    """Loads the run's model and tokenizer, and prints which checkpoint was loaded.

    Raises:
      ConfigError: config, tokenizer and checkpoint in the folder do not belong together.
    """
    began = time.perf_counter()
    mesh = decoding_mesh(MESH.value)
    run = load_trained_model(WORKDIR.value, CHECKPOINT.value, EMA.value, OWN_FUNCTIONS.value, mesh)
    platform = jax.default_backend() if mesh is None else f"{mesh.size} x {jax.default_backend()}"
    for change in code_changes(run.metadata, run.config):
        notes.print(f"changed: {change}", style="yellow")
    which = f"{CHECKPOINT.value}, " if CHECKPOINT.value in ("latest", "best") else ""
    is_average, count = means_average(run.metadata, EMA.value), f"{run.num_parameters:,}"
    kind = f"moving average of {count} parameters" if is_average else f"{count} raw parameters"
    notes.print(
        f"{WORKDIR.value}: step {run.metadata['step']:,} ({which}{kind}), {WEIGHTS.value or run.config.model.dtype} on "
        f"{platform}, loaded in {time.perf_counter() - began:.1f} s",
        style="dim",
    )
    return run


def rows_at_once(prompts: list[str] | None) -> int:
    """The most rows that are generated together; None: prompts are typed one after another."""
    num_texts = 1 if prompts is None or STREAM.value else len(prompts) * NUM_SAMPLES.value
    if NUM_BEAMS.value:
        num_texts = NUM_BEAMS.value * (1 if prompts is None else len(prompts))
    return min(BATCH_SIZE.value, num_texts)


def make_generator(run: TrainedModel, name: str | None, batch_size: int, notes: Console) -> Generator:
    """The generator of the run's model, or of the model with an adapter."""
    adapter = None
    if name is not None:
        adapter = run.adapters([name])[name]
        origin = "" if adapter.base else "; it does not say which model it was trained on"
        notes.print(f"--adapter={name}: rank {adapter.config.lora_rank}{origin}", style="dim")
    return run.generator(adapter, batch_size=batch_size, weights=WEIGHTS.value)


def converse(generator: Generator, output: Console, notes: Console) -> None:
    """Continues each prompt as it is typed. Ctrl-C ends a continuation, Ctrl-D ends the conversation."""
    notes.print("type a prompt and press Enter; Ctrl-D ends", style="dim")
    if isinstance(sys.stdin, io.TextIOWrapper):
        sys.stdin.reconfigure(errors="surrogateescape")  # the generator refuses bytes that are not text
    for number, prompt in enumerate(typed_lines(output)):
        timing = Timing()
        try:
            begin(output, prompt + generator.separator)
            if NUM_BEAMS.value:
                (completion,) = generator.search([prompt], timing=timing, **search_options())
                write_raw(output, completion.text + "\n")
            else:
                completion = show_stream(generator, prompt, SEED.value + number, output, timing)
            say(notes, [completion], timing)
        except KeyboardInterrupt:
            output.print()
        except ConfigError as error:  # for example a prompt that is too long: the next may be shorter
            notes.print(f"\n{error}", style="red")


def typed_lines(output: Console) -> Iterator[str]:
    while True:
        try:
            yield output.input(Text("> ", "bold green"))
        except EOFError:
            return output.print()


def show_stream(generator: Generator, prompt: str, seed: int, output: Console, timing: Timing) -> Completion:
    """Prints a continuation while it is generated."""
    stream = generator.stream(prompt, seed=seed, timing=timing, **options())
    while True:
        try:
            write_raw(output, next(stream))
        except StopIteration as end:
            write_raw(output, "\n")
            return end.value


def show(output: Console, completions: list[Completion], separator: str) -> None:
    """Prints all completions, each after its prompt."""
    for completion in completions:
        begin(output, completion.prompt + separator, is_first=completion is completions[0])
        write_raw(output, completion.text + "\n")


def begin(output: Console, prompt: str, is_first: bool = True) -> None:
    """Prints the prompt in bold, after a line that separates it from the previous completion."""
    if not is_first:
        write_raw(output, "─" * 40 + "\n", "dim")
    write_raw(output, prompt, "bold")


def say(notes: Console, completions: list[Completion], timing: Timing) -> None:
    """Prints facts about the completions: characters without a token, what ended each text, and the speed."""
    for prompt, unknown in {each.prompt: each.unknown_characters for each in completions}.items():
        if unknown:
            notes.print(
                f"prompt {reprlib.repr(prompt)}: the tokenizer has no token for {reprlib.repr(unknown)}, so the model "
                "reads <unk> instead",
                style="yellow",
            )
    counts = Counter(each.finish_reason for each in completions)
    ends = ", ".join(
        f"{count if len(completions) > 1 else ''} by {FINISH_REASONS[reason]}".strip()
        for reason, count in counts.most_common()
    )
    notes.print(f"ended {ends}", style="dim")
    notes.print(speed(timing), style="dim")


def speed(timing: Timing) -> str:
    """Returns separate rates for prompt and new tokens if they were timed separately, otherwise one rate for both."""
    tokens = f"{counted(timing.prompt_tokens, 'prompt token')}, {timing.new_tokens:,} new"
    if timing.prefill_seconds is None:
        rate = f"{timing.tokens_per_second:,.0f} new tokens/s, prompts included"
    else:
        rate = (
            f"prefill {timing.prefill_tokens_per_second:,.0f} tokens/s · "
            f"decode {timing.decode_tokens_per_second:,.0f} tokens/s"
        )
    return f"{tokens} · {rate} · compilation {timing.compile_seconds:.1f} s"


def write_json(
    path: Path, completions: list[tuple[str | None, Completion]], timing: Timing, is_average: bool, weights: str
) -> None:
    """Writes the completions and everything needed to reproduce them; floats are written exactly."""
    content = dict(
        workdir=WORKDIR.value,
        checkpoint=CHECKPOINT.value,
        ema=is_average,
        weights=weights,
        options=search_options() if NUM_BEAMS.value else options(),
        timing=dataclasses.asdict(timing),
        completions=[
            dataclasses.asdict(completion) | ({} if adapter is None else {"adapter": adapter})
            for adapter, completion in completions
        ],
    )
    text = json.dumps(content, indent=1, ensure_ascii=False) + "\n"
    data = text.encode("utf-8", "backslashreplace")  # --workdir may not be UTF-8; this writes JSON's escapes
    if path.exists() and not path.is_file():  # a pipe
        path.write_bytes(data)
        return
    with write_aside(path.resolve()) as file:
        file.write(data)


if __name__ == "__main__":
    cli.run(main, flags)
