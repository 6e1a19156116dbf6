"""The next steps suggested for a prepared folder fit its size, kind and content."""

import pytest
from pipeline_running import config, prepare

from gptjax.corpus.report.next_steps import BY_SIZE, PYTHON, TINY, first_words, next_steps


@pytest.fixture
def folder(tmp_path):
    for name, text in (("books", "\n\n  Ο ήλιος — είναι εκεί πάνω\nsecond line" * 40), ("web", "other " * 300)):
        (tmp_path / name).mkdir()
        (tmp_path / name / "a.txt").write_text(text)
    (tmp_path / "data").mkdir()
    prepare(config(tmp_path, split__by="tail"), tmp_path / "data")
    return tmp_path / "data"


def manifest_of(tokens, path="texts", splits=("train", "validation")):
    return {"splits": {split: {"tokens": tokens} for split in splits}, "options": {"sources": [{"path": path}]}}


def suggested(folder, **facts):
    return next_steps(folder, manifest_of(**facts), lambda name: f"gptjax {name}")


def test_the_prompt_is_the_first_words_that_can_be_typed(folder):

    assert first_words(folder) in ("Ο ήλιος —", "other other other")


@pytest.mark.parametrize("tokens, config_file", [(10, TINY), (57_000_000, TINY), *((n, name) for n, name in BY_SIZE)])
def test_the_config_fits_the_size(folder, tokens, config_file):
    train, _ = suggested(folder, tokens=tokens)
    assert config_file in train and ("--config.training.duration=" in train) == (tokens < 30_720)


def test_the_standard_library_has_its_own_config(folder):
    train, sample = suggested(folder, tokens=5_000_000, path=PYTHON)
    assert "configs/stdlib_tiny.py" in train and "--prompt='def '" in sample


def test_pairs_and_labelled_texts_have_their_own_configs(folder):
    for form, tokens, documents, config_file in [
        ("pairs", 10_000, 1000, "configs/translation.py:tiny "),
        ("pairs", 10**6, 10**5, "configs/translation.py "),
        ("pairs", 10**6, 10**4, "configs/summarization.py "),
        ("labelled", 10**6, 10**5, "configs/classifier.py "),
    ]:
        manifest = manifest_of(tokens) | {"form": form}
        manifest["splits"]["train"]["documents"] = documents
        train, then = next_steps(folder, manifest, lambda name: f"gptjax {name}")
        assert config_file in train and then.startswith("gptjax classify" if form == "labelled" else "gptjax sample")


def test_texts_with_the_tokens_of_a_run_are_classified_by_a_model_that_starts_from_it(folder):
    (folder.parent / "run").mkdir()
    manifest = manifest_of(10**6) | {"form": "labelled"}
    for files, expected in (
        ((), "configs/classifier.py "),
        (("config.json",), f"configs/classifier.py:{folder.parent}/run "),
    ):
        for file in files:
            (folder.parent / "run" / file).write_text("{}")
        manifest["options"]["tokenizer.name"] = f"{folder.parent}/run"
        train, _ = next_steps(folder, manifest, lambda name: f"gptjax {name}")
        assert expected in train


def test_without_a_validation_split_no_evaluation_is_suggested(folder):
    train, _ = suggested(folder, tokens=10**6, splits=("train",))
    assert "--config.evaluation.every=''" in train
