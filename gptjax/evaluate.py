"""Evaluates a model: python -m gptjax.evaluate --workdir=runs/mine --tasks=hellaswag,blimp --task_data=data/eval

  … --tasks=core                                        the centred average of 22 tasks (those with data)
  … --tasks=cards/quiz.toml                             your own task: a card and a file of questions
  … --tasks=translation --task_data=data/fra_eng        the held-out pairs of a prepared folder
  … --tasks=blimp --average=3                           the mean of the parameters of the last 3 checkpoints
  … --tasks=core --mesh=tensor=2                        a model too large for one device: it is split over two
  … --text=books,data/mine                              perplexity, bits per byte, token accuracy, by domain
  … --tasks=gsm8k --limit=200 --few_shot=3              fewer items, chosen by a seed; another number of examples
  … --tasks=gsm8k --few_shot=0 --chat                   asked as a user, by the template of a run on conversations
  … --harness --tasks=my/quiz.yaml                      tasks of the library lm_eval, from local files
  python -m gptjax.evaluate compare runs/a runs/b --plot=compared.png       differences in pairs, with p-values

The cards in configs/tasks say what each task asks and where its data are available; --task_data names folders with the
data. Results are written into the run's folder: evaluation/step-00002000/results.json, beside it the answers in
items/TASK.jsonl and .eval_results/*.yaml for the Hugging Face hub. A killed evaluation continues where it stopped.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
import xxhash
from jax.sharding import Mesh
from rich.progress import Progress as Bars

from gptjax.command_line import cli
from gptjax.command_line.flags import Flags, given_run
from gptjax.command_line.runtime import use_compilation_cache
from gptjax.config import ConfigError
from gptjax.conversation import Renderer, template_of
from gptjax.data.mixture import parse_mixture
from gptjax.display.formatting import counted
from gptjax.display.terminal import Console
from gptjax.evaluation import harness, results
from gptjax.evaluation.answering import ModelAnswerer
from gptjax.evaluation.classification import confusion_table
from gptjax.evaluation.compare import compare_runs
from gptjax.evaluation.tasks import Subject, Task, find_tasks, run_tasks
from gptjax.evaluation.tasks.contamination import of_folders
from gptjax.evaluation.tasks.records import Records
from gptjax.evaluation.tasks.run import Progress
from gptjax.evaluation.text import score_texts, text_table
from gptjax.files.paths import local_path, output_file
from gptjax.inference.devices import decoding_mesh, divide_cpu
from gptjax.model.families import family_of
from gptjax.runs.comparison import check_plot
from gptjax.training.checkpoints.averaged import load_average
from gptjax.training.checkpoints.loading import load_for_inference, load_tokenizers

flags = Flags()
WORKDIR, CHECKPOINT, EMA, OWN_FUNCTIONS = flags.define_run()
AVERAGE = flags.DEFINE_integer(
    "average",
    0,
    "The number of checkpoints, the last ones kept, whose parameters are averaged; 0: no average.",
    0,
)
TASKS = flags.DEFINE_string("tasks", None, "Cards of configs/tasks, paths of cards, or core, separated by commas.")
TASK_DATA = flags.DEFINE_list(
    "task_data", [], "Folders with the tasks' data. The run's own prepared folder is searched as well."
)
HARNESS = flags.DEFINE_bool(
    "harness",
    False,
    "Use lm_eval's tasks: names of its tasks whose data are on this machine, or paths of its YAML files.",
)
TEXT = flags.DEFINE_list(
    "text",
    [],
    "Text files, folders of them, or prepared folders, separated by commas: perplexity, bits per byte, token accuracy.",
)
LIMIT = flags.DEFINE_integer(
    "limit",
    0,
    "The maximum number of items per task, drawn by the card's seed (--harness: the first items); 0: all.",
    0,
)
FEW_SHOT = flags.DEFINE_integer("few_shot", None, "Solved examples before each prompt. Default: as the card says.", 0)
NUM_BEAMS = flags.DEFINE_integer(
    "num_beams", 0, "The number of beams of a beam search for texts, as in sample --num_beams; 0: greedy.", 0
)
CHAT = flags.DEFINE_bool(
    "chat", False, "Ask for texts as a user of a conversation, by the template that the run was trained with."
)
MESH = flags.define_mesh()
PLOT = flags.DEFINE_string("plot", None, "compare: draw the scores of all runs into this file: .png, .svg or .pdf.")

COMPARE = "compare"
TABLE_WIDTH = 160  # columns, if there is no terminal


def main(argv: list[str]) -> None:
    console = Console()
    console = console if console.is_terminal else Console(width=TABLE_WIDTH)
    arguments = argv[1:]
    if arguments and arguments[0] == COMPARE:
        return compare(arguments[1:], console)
    if arguments:
        raise ConfigError(
            f"unexpected argument {arguments[0]!r}: expected compare RUN RUN …, or --name=value (see --help)"
        )
    run = given_run(WORKDIR)
    if TASKS.value is None and not TEXT.value:
        raise ConfigError(
            "--tasks or --text is missing: must name what to evaluate, such as --tasks=hellaswag or --text=FOLDER "
            "(see --help)"
        )
    if HARNESS.value and TASKS.value is None:
        raise ConfigError("--harness: needs --tasks, which names tasks of lm_eval or their YAML files")
    if AVERAGE.value and CHECKPOINT.present:
        raise ConfigError(f"--average={AVERAGE.value}: takes the last checkpoints, so --checkpoint must not be given")
    if PLOT.present:
        raise ConfigError(f"--plot={PLOT.value}: is an option of compare RUN RUN …")
    evaluate(run, TASKS.value or "", console)


def compare(runs: list[str], console: Console) -> None:
    jax.config.update("jax_platforms", "cpu")  # nothing is computed
    plot = output_file(PLOT.value, "--plot") if PLOT.value is not None else None
    if plot:
        check_plot(plot, "--plot")
    compare_runs([local_path(run, "RUN") for run in runs], console, plot)


def evaluate(run: Path, names: str, console: Console) -> None:
    """Reads the tasks and the model, evaluates, and writes and prints the results."""
    data = [local_path(folder, "--task_data") for folder in TASK_DATA.value]
    mesh = decoding_mesh(MESH.value)  # before JAX starts
    if mesh is None:
        divide_cpu()
    use_compilation_cache()
    averaged: list[dict] = []
    if AVERAGE.value:
        params, config, averaged = load_average(run, AVERAGE.value, EMA.value, OWN_FUNCTIONS.value, mesh)
        metadata = averaged[-1]
    else:
        params, config, metadata = load_for_inference(run, CHECKPOINT.value, EMA.value, OWN_FUNCTIONS.value, mesh)
    if config.model.family == "classifier":
        raise ConfigError(
            f"--workdir={run}: is the run of a classifier, which does not write; python -m gptjax.classify "
            f"--workdir={run} --data=FOLDER gives accuracy, macro-F1 and the confusion matrix on labelled texts"
        )
    # An imported run has no data of its own.
    prepared = [Path(folder) for folder, _ in parse_mixture(config.data.path)] if config.data.path else []
    here = [folder for folder in prepared if folder.is_dir()]
    texts = [local_path(path, "--text") for path in TEXT.value]
    for path in texts:
        if not path.exists():
            raise ConfigError(f"--text={path}: must be a file or a folder, but there is nothing of this name")
    tasks: list[Task] = []
    missing: list[str] = []
    loaded: harness.Loaded | None = None
    if names and HARNESS.value:
        loaded = harness.load_tasks(
            names,
            data,
            own_functions=OWN_FUNCTIONS.value,
            few_shot=FEW_SHOT.value,
            continues=family_of(config.model).continues,
        )
    elif names:
        tasks, missing = find_tasks(names, data, also=here, limit=LIMIT.value, few_shot=FEW_SHOT.value)
    for name in missing:
        console.print(f"core: the data of {name} were not found", style="yellow")
    answerer, identity, writing = load_model(run, params, config, metadata, mesh)
    folder, of = results.results_folder(run, metadata["step"], len(averaged)), f"step {metadata['step']:,}"
    if averaged:
        identity["averaged"] = {each["step"]: results.checkpoint_hash(each) for each in averaged}
        of = "the mean of steps " + ", ".join(f"{each['step']:,}" for each in averaged)
    devices = counted(jax.local_device_count(), "device")
    console.print(f"{run}: {of}, context {answerer.context:,} tokens, {devices}", style="dim")

    if texts:
        with progress_bars(console, "tokens") as progress:
            of_texts = {str(path): read_text(path, answerer, identity, folder, progress) for path in texts}
        results.write_results(folder, identity, {"text": of_texts})
        console.print(text_table(of_texts))
    if tasks:
        subject = Subject(identity, of_folders(prepared), writing)
        found = ask(tasks, answerer, subject, folder, console)
        averages = results.averages_of([name.strip() for name in names.split(",")], found)
        results.write_results(folder, identity, {"averages": averages})
        console.print(results.task_table(found, averages))
        for name, result in found.items():
            if confusion := result.get("confusion"):
                console.print(f"{name}:", confusion_table(np.array(confusion["counts"]), confusion["labels"]))
        for note in (*subject.training_text.notes, *results.notes(found, averages)):
            console.print(note, soft_wrap=True)
        if subject.training_text.sets and config.training.init_from:
            console.print(
                "contamination: compared with the text of this run, not with that of the run that it started from, "
                f"{config.training.init_from}",
                soft_wrap=True,
            )
    if loaded:
        with progress_bars(console, "answers") as progress:
            found = harness.run_harness(loaded, answerer, identity | writing, folder, LIMIT.value, progress)
        results.write_results(folder, identity, {"harness": found})
        console.print(harness.harness_table(found))
        for note in loaded.notes:
            console.print(note, soft_wrap=True)
    console.print(f"results: {folder / results.FILE}", soft_wrap=True)


def read_text(
    path: Path,
    answerer: ModelAnswerer,
    identity: dict[str, Any],
    folder: Path,
    progress: Progress = lambda name, done, total: None,
) -> dict[str, Any]:
    """Domain → scores. The sums of each document are recorded and not computed again.

    Raises:
      ConfigError: the model does not continue texts, and as `score_texts`.
    """
    if not answerer.generator.family.continues:
        raise ConfigError(
            f"--text={path}: model.family = {answerer.generator.config.family!r} predicts targets from sources and has "
            "no likelihood of a text; --tasks=translation scores the held-out pairs of its prepared folder"
        )
    name = f"{path.name}-{xxhash.xxh3_64_hexdigest(str(path.resolve()).encode())[:8]}.jsonl"
    with Records(folder / "text" / name, identity) as records:
        return score_texts(
            path,
            answerer.scorer,
            answerer.tokenizer,
            answerer.generator.begin_id,
            answerer.context,
            records,
            functools.partial(progress, path.name),
        )


def load_model(
    run: Path, params: Any, config: Any, metadata: dict, mesh: Mesh | None
) -> tuple[ModelAnswerer, dict[str, Any], dict[str, Any]]:
    """The model that answers, everything that its answers depend on, and what only its texts depend on.

    Raises:
      ConfigError: config, tokenizers and checkpoint in the folder do not belong together.
    """
    run_tokenizer, of_sources = load_tokenizers(run, metadata)
    if jax.default_backend() == "cpu":  # on a CPU, only matrix products are faster in bfloat16
        config = dataclasses.replace(config, model=dataclasses.replace(config.model, dtype="float32"))
    renderer = None
    if CHAT.value:
        if not metadata["fingerprint"].get("template"):
            raise ConfigError(f"--chat: the run of --workdir={run} was not trained on conversations")
        renderer = Renderer(template_of(metadata["fingerprint"]["template"], "template"), run_tokenizer)
    answerer = ModelAnswerer(
        params,
        config,
        run_tokenizer,
        metadata["fingerprint"].get("begin_id"),
        source_tokenizer=of_sources,
        renderer=renderer,
        num_beams=NUM_BEAMS.value,
        mesh=mesh,
    )
    identity = {
        "run": run.name,
        "step": metadata["step"],
        "checkpoint": results.checkpoint_hash(metadata),
        "moving_average": bool(EMA.value is not False and config.training.ema_decay),
        "tokenizer": run_tokenizer.hash,
        **({} if of_sources is None else {"source_tokenizer": of_sources.hash}),
        "context": answerer.context,
        "dtype": config.model.dtype,
        "platform": jax.default_backend(),
    }
    writing = {
        "num_beams": answerer.num_beams,
        **({} if renderer is None else {"template": renderer.template.name}),
    }
    return answerer, identity, writing


def ask(tasks: list[Task], answerer: ModelAnswerer, subject: Subject, folder: Path, console: Console) -> dict[str, Any]:
    """Evaluates one task after the other; the result of each is written before the next one begins."""
    found: dict[str, Any] = {}
    with progress_bars(console, "items", {task.name: len(task.items) for task in tasks}) as progress:
        for task in tasks:
            of_task = run_tasks([task], answerer, subject, folder, progress)
            results.write_results(folder, subject.identity, {"tasks": of_task})
            found |= of_task
    return found


@contextlib.contextmanager
def progress_bars(console: Console, unit: str, all_of: Mapping[str, int] | None = None) -> Iterator[Progress]:
    """A function of (name, number done, total), which draws bars on a terminal. Elsewhere it prints a line when all
    items of a name are done.

    all_of: names whose bars are shown from the beginning.
    """
    began = time.monotonic()
    with Bars(console=console, transient=True, disable=not console.is_terminal) as bars:
        announced: set[str] = set()
        bar = {name: bars.add_task(name, total=total, start=False) for name, total in (all_of or {}).items()}

        def progress(name: str, done: int, total: int) -> None:
            if name not in bar:
                bar[name] = bars.add_task(name, total=total, start=False)
            bars.start_task(bar[name])
            bars.update(bar[name], completed=done)
            if done == total and name not in announced and not console.is_terminal:
                announced.add(name)
                console.print(f"{name}: {total:,} {unit}, {time.monotonic() - began:.0f} s", style="dim")

        yield progress


if __name__ == "__main__":
    cli.run(main, flags, arguments=10_000)
