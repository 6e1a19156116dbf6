"""Instructions: what a pretrained run gains by fine-tuning on them, on held-out instructions and on held-out tasks.

  python experiments/instructions/measure.py --base=runs/base --runs=runs/instructions \\
    --book=instruction-data.json --natural=natural_instructions
  … --name=lora --more='--config.model.lora_rank=8 --config.model.lora_also=embedding'   adapters

--base is a run that was trained on text. --book is the file of 1,100 instructions of "Build a Large Language Model
(From Scratch)", divided as in its chapter 7: the first 85 % train, the next 10 % are the test. --natural is a folder of
tasks of Natural Instructions: every sixth is held out. Finished runs are not trained again. Prints the tables and
examples of the README, and writes results.csv and all answers beside the runs.

Before: the base run, asked with the text of the instruction alone; its answer is the first line with any text. The loss
before is that of the grown model before its first step, which knows no template. After: asked by the template, until
the end of the turn. Echo: an answer that repeats the question. Answers take the most probable token; ROUGE-L and exact
match are those of gptjax evaluate.
"""

import argparse
import csv
import json
import shlex
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np

from gptjax import tokenizer
from gptjax import train as command
from gptjax.conversation import Renderer, messages_of, template_of
from gptjax.data import open_dataset
from gptjax.evaluation.tasks.answers import SCORES, rouge_scores
from gptjax.evaluation.validation import validate
from gptjax.inference.generate import Generator
from gptjax.runs.start import starting_state
from gptjax.training.checkpoints.loading import load_for_inference, saved_config, saved_steps

HERE = Path(__file__).parent
OF_TASK, OF_HELD_OUT = 40, 15  # instances to train on and to ask, per task of Natural Instructions
EVERY = 6  # of these tasks is held out
ANSWER_TOKENS = 64
EXAMPLES = 3  # shown of each set
FIELDS = ("set", "training", "loss", "rougeL", "exact_match", "questions", "seconds")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("base", "runs"):
        parser.add_argument(f"--{name}", type=Path, required=True)
    for name in ("book", "natural"):
        parser.add_argument(f"--{name}", type=Path)
    parser.add_argument("--duration", default="3 epochs")
    parser.add_argument("--more", default="", help="further flags of gptjax train, as one text")
    parser.add_argument("--name", default="full", help="the name of the trained runs")
    options = parser.parse_args()
    options.runs.mkdir(parents=True, exist_ok=True)
    rows = []
    for name, make in (("book", book_sets), ("natural", natural_sets)):
        if source := getattr(options, name):
            folder = options.runs / name
            train, test = make(source)
            prepared = prepare(folder, options.base, train, test)
            rows += measure(name, prepared, folder / options.name, test, options)
    write = csv.DictWriter(sys.stdout, FIELDS)
    write.writeheader()
    write.writerows(rows)
    with open(options.runs / "results.csv", "a", newline="") as file:
        csv.DictWriter(file, FIELDS).writerows(rows)


# --- Data -------------------------------------------------------------------------------------------------------------


def book_sets(file: Path) -> tuple[list[dict], list[dict]]:
    """The training and the test rows of the book: 85 % and the next 10 % of the file."""
    rows = json.loads(file.read_text())
    first, second = int(0.85 * len(rows)), int(0.95 * len(rows))
    return rows[:first], rows[first:second]


def natural_sets(folder: Path) -> tuple[list[dict], list[dict]]:
    """Some instances of each task, and of each task that is held out, spread over its file."""
    train, test = [], []
    for number, file in enumerate(sorted(folder.glob("task*.json"))):
        task = json.loads(file.read_text())
        held_out = number % EVERY == EVERY - 1
        instances = task["Instances"]
        count = min(OF_HELD_OUT if held_out else OF_TASK, len(instances))
        for place in np.linspace(0, len(instances) - 1, count).astype(int):
            one = instances[place]
            row = {"task": file.stem, "prompt": f"{task['Definition'][0]}\n\n{one['input']}"}
            (test if held_out else train).append(row | {"completion": one["output"][0], "others": one["output"][1:]})
    return train, test


def prepare(folder: Path, base: Path, train: list[dict], test: list[dict]) -> Path:
    folder.mkdir(exist_ok=True)
    for name, rows in (("train", train), ("test", test)):
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    run(
        "prepare",
        f"--conversations={folder}/train.jsonl",
        f"--validation_input={folder}/test.jsonl",
        f"--tokenizer={base}",
        f"--output={folder}/data",
    )
    return folder / "data"


def run(name: str, *arguments: str) -> None:
    subprocess.run([sys.executable, "-m", f"gptjax.{name}", *arguments], check=True)


# --- Training and scores ----------------------------------------------------------------------------------------------


def measure(name: str, data: Path, workdir: Path, test: list[dict], options: argparse.Namespace) -> list[dict]:
    if not (workdir / "plots").is_dir():  # drawn at the end of a run
        run(
            "train",
            f"--config=configs/instructions.py:{options.base}",
            f"--config.data.path={data}",
            f"--config.training.duration={options.duration}",
            f"--workdir={workdir}",
            *shlex.split(options.more),
        )
    questions = [(messages_of(row), [row.get("completion") or row["output"], *row.get("others", [])]) for row in test]
    rows, answers = [], {"echo": [messages[0].content for messages, _ in questions]}
    asked = {"none": (loss_before, ask_base, options.base), options.name: (loss_after, ask_chat, workdir)}
    for training in ("echo", *asked):
        loss = ""
        if training != "echo":
            loss_of, ask, of = asked[training]
            loss = f"{loss_of(workdir):.3f}"
            answers[training] = ask(of)([messages for messages, _ in questions])
        scores = [
            (rouge_scores(text, references, ["rougeL"])["rougeL"], SCORES["exact_match"](text, references))
            for text, (_, references) in zip(answers[training], questions)
        ]
        rouge, exact = np.mean(scores, axis=0)
        seconds = f"{trained_seconds(workdir):.0f}" if training == options.name else ""
        rows.append(dict(zip(FIELDS, (name, training, loss, f"{rouge:.3f}", f"{exact:.3f}", len(test), seconds))))
    all_answers = [
        {"question": messages[-2].content, "references": references, **{kind: answers[kind][i] for kind in answers}}
        for i, (messages, references) in enumerate(questions)
    ]
    (workdir / "answers.json").write_text(json.dumps(all_answers, indent=1, ensure_ascii=False))
    for one in all_answers[:: max(1, len(all_answers) // EXAMPLES)][:EXAMPLES]:
        print(json.dumps(one, indent=1, ensure_ascii=False))
    return rows


def trained_seconds(workdir: Path) -> float:
    rows = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    return max(row[name] for row in rows for name in row if name.endswith("elapsed_seconds"))


def opened(workdir: Path):
    """The run without a checkpoint of its own, as it was before the first step."""
    return command.open_run(saved_config(workdir), workdir)


def loss_before(workdir: Path) -> float:
    config = saved_config(workdir)
    fresh = command.open_run(config, workdir / "before")
    with jax.set_mesh(fresh.mesh), command.open_checkpoints(fresh) as checkpoints:
        state, *_ = starting_state(fresh.plan, fresh.data, checkpoints)
        return scored(fresh, state.best_params)


def loss_after(workdir: Path) -> float:
    run = opened(workdir)
    with jax.set_mesh(run.mesh), command.open_checkpoints(run) as checkpoints:
        state, *_ = starting_state(run.plan, run.data, checkpoints)
        assert int(state.step) == saved_steps(workdir)[-1]
        return scored(run, state.best_params)


def scored(run, params) -> float:
    """The mean loss of the answers' tokens of the test rows, in nats."""
    config = run.config
    rows = open_dataset(
        config.data, "validation", seed=0, batch_size=run.plan.rows_at_once, windows=run.plan.trainer.objective.windows
    )
    step = run.plan.trainer.evaluation_step(run.tokenizer)
    scores = validate(step, run.plan.trainer.objective.scores_of, params, rows, run.mesh, run.plan.rows_at_once)
    return scores["validation/loss"]


def ask_base(base: Path):
    params, config, metadata = load_for_inference(base)
    words = tokenizer.load(base)
    generator = Generator(params, config, words, begin_id=metadata["fingerprint"].get("begin_id"))

    def ask(conversations):
        most = config.model.max_positions - ANSWER_TOKENS - 1
        prompts = [words.encode(messages[0].content + "\n")[-most:] for messages in conversations]
        prompts = [[generator.begin_id, *prompt] for prompt in prompts]
        answers = texts(generator.generate(prompts, **DRAWING))
        return [answer.partition("\n")[0] for answer in answers]

    return ask


def ask_chat(workdir: Path):
    params, config, metadata = load_for_inference(workdir)
    renderer = Renderer(template_of(metadata["fingerprint"]["template"], "template"), tokenizer.load(workdir))
    begin = metadata["fingerprint"]["begin_id"]
    generator = Generator(params, config, renderer.tokenizer, begin_id=begin, end_id=renderer.end_id)

    def ask(conversations):
        most = config.model.max_positions - ANSWER_TOKENS
        prompts = [[begin, *renderer.prompt(messages[:-1])] for messages in conversations]
        return texts(generator.generate([prompt[-most:] for prompt in prompts], **DRAWING))

    return ask


DRAWING = {"max_new_tokens": ANSWER_TOKENS, "temperature": 0.0}


def texts(completions) -> list[str]:
    return [completion.text.strip() for completion in completions]


if __name__ == "__main__":
    main()
