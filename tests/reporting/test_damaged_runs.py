"""Whatever a run's files hold, a report is written or refused in one sentence: no value of a wrong type stops it."""

import json
import random
import shutil

import pytest

from gptjax.errors import ConfigError
from gptjax.reporting.facts import gather
from gptjax.reporting.page import page
from gptjax.reporting.privacy import names_of_machine, without_names
from gptjax.reporting.sections import report_of

ODD = (
    None,
    "",
    "x",
    "<b>",
    "NaN",
    0,
    -1,
    3,
    10**400,
    1e308,
    -0.5,
    True,
    [],
    {},
    [None],
    {"a": 1},
    [[1, "y"]],
    "/etc/x/y",
)
FILES = ("history.jsonl", "metrics.jsonl", "classification/confusion.json", "evaluation/*/results.json", "manifest")


def places(tree, path=()):
    """The paths of all values of a JSON tree."""
    items = tree.items() if isinstance(tree, dict) else enumerate(tree) if isinstance(tree, list) else ()
    for name, value in items:
        yield (*path, name)
        yield from places(value, (*path, name))


def mutated(text, draw):
    """The JSON text with up to three values replaced or removed."""
    lines = [json.loads(line) for line in text.splitlines()] if not text.startswith("{\n") else [json.loads(text)]
    for _ in range(draw.randint(1, 3)):
        tree = draw.choice(lines)
        *parents, name = draw.choice(list(places(tree)) or [()]) or (None,)
        for parent in parents:
            tree = tree[parent]
        if draw.random() < 0.25 and isinstance(tree, dict):
            del tree[name]
        else:
            tree[name] = draw.choice(ODD)
    return "".join(json.dumps(line) + "\n" for line in lines)


def check(run, folder, seeds):
    scores = {"accuracy": 0.9, "macro_f1": 0.8, "loss": 0.25, "texts": 80.0, "accuracy_95": [0.8, 0.95], "step": 60}
    scores |= {"split": "test", "data": "d", "labels": ["ham", "spam"], "confusion": [[40, 5], [3, 32]]}
    shutil.copytree(run, folder)
    (folder / "classification").mkdir()
    (folder / "classification" / "confusion.json").write_text(json.dumps(scores))
    shutil.copytree(json.loads((run / "config.json").read_text())["data"]["path"], folder / "books")
    config = json.loads((folder / "config.json").read_text())
    config["data"]["path"] = str(folder / "books")
    (folder / "config.json").write_text(json.dumps(config))
    lines = (folder / "metrics.jsonl").read_text().splitlines()[:-1]
    (folder / "metrics.jsonl").write_text("".join(line + "\n" for line in lines[::5]))
    for seed in seeds:
        draw = random.Random(seed)
        pattern = draw.choice(FILES)
        (path,) = folder.glob("books/manifest.json" if pattern == "manifest" else pattern)
        whole = path.read_text()
        changed = mutated(whole, draw)
        path.write_text(changed)
        try:
            document = report_of(gather(folder), "")
            assert page(without_names(document, names_of_machine([folder]))).startswith("<!DOCTYPE")
        except ConfigError:
            pass
        except Exception as error:
            raise AssertionError(f"seed {seed}, {path.name}: {changed[:3000]}") from error
        finally:
            path.write_text(whole)


def test_values_of_wrong_types_do_not_stop_a_report(run, tmp_path):
    check(run, tmp_path / "run", range(25))


@pytest.mark.exhaustive
def test_many_values_of_wrong_types_do_not_stop_a_report(run, tmp_path):
    check(run, tmp_path / "run", range(25, 700))
