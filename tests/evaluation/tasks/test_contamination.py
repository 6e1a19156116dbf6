"""A corpus is prepared with an evaluation set, and the evaluation finds the items that the corpus contains."""

import json
import random

import pytest
from pipeline_running import Here, watch
from table_answerer import CHOICES, TableAnswerer, write_task

from gptjax.corpus.config import default, evaluation, source, validate
from gptjax.corpus.pipeline import Pipeline
from gptjax.corpus.sources.listing import list_sources
from gptjax.evaluation.tasks import Subject, find_tasks, run_tasks
from gptjax.evaluation.tasks.contamination import TrainingText, of_folders


def words(seed, count):
    return " ".join(random.Random(seed).choices([f"w{number}" for number in range(400)], k=count))


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Seven questions, of which the corpus contains the 2nd and the 5th. The 7th is too short to be searched for."""
    folder = tmp_path_factory.mktemp("corpus")
    rows = [{"question": words(100 + k, 30), "choices": ["a", "b", "c"], "gold": 0} for k in range(6)]
    rows.append(rows[0] | {"question": "too short"})
    card = write_task(folder, CHOICES, rows)
    texts = [words(k, 120) + (f". {rows[k]['question'].title()}!" if k in (1, 4) else "") for k in range(12)]
    (folder / "texts.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    config = default()
    config.sources = (source(name="texts", kind="text", path=f"{folder}/texts.jsonl"),)
    config.contamination.sets = (evaluation(name="quiz", kind="jsonl", path=f"{folder}/quiz.jsonl"),)
    config.contamination.action = "report"
    config.tokenizer.name = "byte"
    validate(config)
    prepared = folder / "prepared"
    Pipeline(config, list_sources(config.sources, 10_000), prepared, Here(), watch).prepare({})
    return prepared, card


def result_of(made, *folders):
    tasks, _ = find_tasks(str(made[1]))
    return run_tasks(tasks, TableAnswerer(), Subject({}, of_folders(folders)), None)["quiz"]["contamination"]


def test_items_in_the_training_text_are_found(made):
    found = result_of(made, made[0])
    assert (found["contaminated"], found["clean"], found["ngram"], found["too_short"]) == (2, 5, 13, 1)
    assert found["ngrams"] == 2 * (30 - 13 + 1)
    text = of_folders([made[0]])
    tasks, _ = find_tasks(str(made[1]))
    assert [item.number for item in tasks[0].items if text.shared_by("quiz", item)] == [2, 5]


def test_all_of_several_folders_must_have_been_compared(made, tmp_path):
    assert result_of(made, made[0], made[0])["contaminated"] == 2
    text = of_folders([made[0], tmp_path / "gone"])
    assert not text.sets and "gone" in text.notes[0]
    assert result_of(made, made[0], tmp_path / "gone") is None
    assert of_folders([]) == TrainingText(shared={})


def test_a_changed_list_of_items_is_not_used(made, tmp_path):
    import shutil

    shutil.copytree(made[0], tmp_path / "copy")
    name = json.loads((made[0] / "manifest.json").read_text())["contamination"]["items"]["name"]
    (tmp_path / "copy" / "work" / name).write_bytes(b"nothing")
    text = of_folders([tmp_path / "copy"])
    assert not text.sets and "was changed" in text.notes[0]
