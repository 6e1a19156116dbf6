"""Labels from a trained classifier: python -m gptjax.classify --workdir=runs/spam --text='You have won a prize!'

  … --texts_file=messages.txt --json=labels.json   one text per line; the results with all probabilities
  … --data=data/sms --split=test                   scores on a prepared folder of labelled texts, with the confusion
                                                   matrix as a table, and as confusion.json and .png in the run

For each text, stdout has a line: label, its probability, and the text, separated by tabs. Messages go to stderr.
"""

from __future__ import annotations

import dataclasses
import json
from typing import Any

import jax
import numpy as np

from gptjax import tokenizer
from gptjax.command_line import cli
from gptjax.command_line.flags import Flags, given_run
from gptjax.command_line.runtime import use_compilation_cache
from gptjax.config import ConfigError
from gptjax.data.prepared import SPLITS
from gptjax.display.formatting import counted
from gptjax.display.terminal import Console, write_raw
from gptjax.evaluation.classification import confusion_table, scores_of_classes, wilson_interval, write_confusion
from gptjax.evaluation.validation import summed
from gptjax.files import write_aside
from gptjax.files.paths import local_path, output_file
from gptjax.inference.classify import classify
from gptjax.inference.prompts import read_prompts
from gptjax.model.families import reading_family_of
from gptjax.settings import Settings
from gptjax.training.checkpoints.loading import load_for_inference
from gptjax.training.checkpoints.run_metadata import check_tokenizer
from gptjax.training.objectives import make_objective

flags = Flags()
WORKDIR, CHECKPOINT, EMA, OWN_FUNCTIONS = flags.define_run("the highest accuracy")
TEXT = flags.DEFINE_multi_string("text", [], "A text to classify; may be given several times.")
TEXTS_FILE = flags.DEFINE_string("texts_file", None, "A file of texts, one per line; in a .jsonl file, JSON strings.")
DATA = flags.DEFINE_string("data", None, "A prepared folder of labelled texts to score instead.")
SPLIT = flags.DEFINE_enum("split", "test", SPLITS, "Which split of --data to score.")
BATCH_SIZE = flags.DEFINE_integer("batch_size", 32, "Number of texts to read at the same time.", 1)
JSON = flags.DEFINE_string("json", None, "Write the labels, with all probabilities, to this file.")

TABLES = (".csv", ".tsv", ".parquet", ".arrow")  # endings of files whose lines are not texts


@dataclasses.dataclass(frozen=True)
class Run:
    """A trained classifier; labels: the names of its classes."""

    params: Any
    config: Settings
    metadata: dict
    tokenizer: tokenizer.Tokenizer
    labels: list[str]


def main(argv: list[str]) -> None:
    del argv
    given_run(WORKDIR)
    if bool(DATA.value) == bool(TEXT.value or TEXTS_FILE.value):
        raise ConfigError("give texts (--text, --texts_file) or a folder of labelled texts (--data)")
    use_compilation_cache()
    run, notes = load_run(), Console(stderr=True, soft_wrap=True)
    notes.print(f"{WORKDIR.value}: step {run.metadata['step']:,}, labels {', '.join(run.labels)}", style="dim")
    if DATA.value:
        score_folder(run, Console())
    else:
        label_texts(run, Console(soft_wrap=True), notes)


def load_run() -> Run:
    """Raises ConfigError: the run is not a classifier's, or its files do not belong together."""
    params, config, metadata = load_for_inference(WORKDIR.value, CHECKPOINT.value, EMA.value, OWN_FUNCTIONS.value)
    labels = metadata["fingerprint"].get("labels")
    if config.model.family != "classifier" or not labels:
        raise ConfigError(
            f"--workdir={WORKDIR.value}: a run of model.family = {config.model.family!r} has no labels; classifiers do"
        )
    run_tokenizer = tokenizer.load(WORKDIR.value)
    check_tokenizer(metadata, run_tokenizer.hash, f"--workdir={WORKDIR.value}")
    return Run(params, config, metadata, run_tokenizer, labels)


# --- Texts ------------------------------------------------------------------------------------------------------------


def label_texts(run: Run, output: Console, notes: Console) -> None:
    path = output_file(JSON.value, "--json") if JSON.value is not None else None
    texts = list(TEXT.value)
    if TEXTS_FILE.value:
        source = local_path(TEXTS_FILE.value, "--texts_file")
        if source.suffix in TABLES:
            raise ConfigError(
                f"--texts_file={source}: is a table, and must have one text per line; with labels, prepare it by "
                "gptjax prepare --labelled and give the folder as --data"
            )
        texts += read_prompts(source, "text")
    begin_id = run.metadata["fingerprint"]["begin_id"]
    probabilities_NC, truncated = classify(
        run.params,
        run.config.model,
        run.tokenizer,
        texts,
        begin_id=begin_id,
        sequence_length=run.config.data.sequence_length,
        batch_size=BATCH_SIZE.value,
    )
    for text, probabilities_C in zip(texts, probabilities_NC):
        best = int(probabilities_C.argmax())
        line = text.replace("\t", " ").replace("\n", " ")
        write_raw(output, f"{run.labels[best]}\t{probabilities_C[best]:.4f}\t{line}\n")
    if truncated:
        of_all = counted(len(texts), "text")
        notes.print(f"{truncated} of {of_all} truncated to {run.config.data.sequence_length} tokens", style="yellow")
    if path:
        rows = [
            {"text": text, "label": run.labels[int(row.argmax())], "probabilities": dict(zip(run.labels, row.tolist()))}
            for text, row in zip(texts, probabilities_NC)
        ]
        with write_aside(path.resolve()) as file:
            file.write((json.dumps(rows, indent=1, ensure_ascii=False) + "\n").encode())


# --- A folder of labelled texts ---------------------------------------------------------------------------------------


def score_folder(run: Run, output: Console) -> None:
    """Prints scores and the confusion matrix, and writes confusion.json and confusion.png into RUN/classification."""
    where = f"--data={DATA.value}"
    data_settings = dataclasses.replace(run.config.data, path=DATA.value)
    evaluation = dataclasses.replace(run.config.evaluation, tokens=0)
    model = dataclasses.replace(run.config.model, num_classes=0)  # the labels are compared below, by name
    objective = make_objective(dataclasses.replace(run.config, data=data_settings, evaluation=evaluation, model=model))
    data = objective.open_data(SPLIT.value, BATCH_SIZE.value)
    check_tokenizer(run.metadata, data.tokenizer_hash, where)
    if data.labels != run.labels:
        unknown = [label for label in data.labels if label not in run.labels]
        raise ConfigError(
            f"{where}: its labels are {', '.join(data.labels)}, and those of the run are {', '.join(run.labels)}"
            + (f"; the run does not know {', '.join(unknown)}" if unknown else "")
        )
    step = jax.jit(objective.evaluation(reading_family_of(run.config.model).module(), run.tokenizer))
    sums = summed(step, run.params, data.batches(0, np.arange(BATCH_SIZE.value)))
    scores = {name.removeprefix("validation/"): value for name, value in scores_of_classes(sums).items()}
    show_scores(scores, sums["confusion"], run.labels, output)
    folder = given_run(WORKDIR) / "classification"
    folder.mkdir(exist_ok=True)
    facts = {"data": DATA.value, "split": SPLIT.value, "set": data.identity(), "step": run.metadata["step"]}
    interval = {"accuracy_95": wilson_interval(scores["accuracy"], scores["texts"])}
    write_confusion(folder, sums["confusion"], run.labels, {**facts, **scores, **interval, "truncated": data.truncated})
    if data.truncated:
        longest = run.config.data.sequence_length
        output.print(f"{counted(data.truncated, 'text')} truncated to {longest} tokens", style="yellow")
    output.print(f"written: {folder}/confusion.json, confusion.png", soft_wrap=True)


def show_scores(scores: dict[str, float], confusion_CC: np.ndarray, labels: list[str], output: Console) -> None:
    output.print(confusion_table(confusion_CC, labels))
    low, high = wilson_interval(scores["accuracy"], scores["texts"])
    output.print(
        f"{counted(int(scores['texts']), 'text')}: accuracy {scores['accuracy']:.4f} (95% interval {low:.3f} to "
        f"{high:.3f}), macro-F1 {scores['macro_f1']:.4f}, loss {scores['loss']:.4f} nats per text",
        soft_wrap=True,
    )


if __name__ == "__main__":
    cli.run(main, flags)
