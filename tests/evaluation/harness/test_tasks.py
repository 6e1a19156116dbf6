"""Errors before a task of lm_eval is loaded, each in one sentence, and the search for its data."""

import pytest

from gptjax.errors import ConfigError
from gptjax.evaluation import harness

pytest.importorskip("lm_eval", reason="needs pip install 'gptjax[eval]'")

DATA = "dataset_path: json\ndataset_kwargs: {data_files: {test: quiz.jsonl}}\ntest_split: test\n"
CHOICE = "output_type: multiple_choice\ndoc_to_choice: [maybe, never]\ndoc_to_target: gold\n"
QUIZ = f"task: quiz\n{DATA}{CHOICE}"
TEXT = f"task: quiz\n{DATA}output_type: generate_until\ndoc_to_text: '{{{{q}}}}'\ndoc_to_target: '{{{{q}}}}'\n"


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    from gptjax.evaluation.harness.library import lm_eval

    lm_eval()
    import datasets

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")


@pytest.fixture
def quiz(tmp_path):
    """quiz(text): the path of a YAML file, beside its data and a module that leaves a marker file when it is
    imported."""
    (tmp_path / "quiz.jsonl").write_text('{"q": "is it?", "gold": 0}\n')
    (tmp_path / "mine.py").write_text(
        f"open({str(tmp_path / 'has_run')!r}, 'w').close()\ndef text(doc):\n    return doc['q'] + ' (mine)'\n"
    )
    (tmp_path / "base.yaml").write_text("doc_to_text: !function mine.text\n")

    def write(text):
        (tmp_path / "quiz.yaml").write_text(text)
        return str(tmp_path / "quiz.yaml")

    return write


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (f"{QUIZ}doc_to_text: !function mine.text\n", "!function mine.text: would run Python code"),
        (f"include: base.yaml\n{QUIZ}", "!function mine.text: would run Python code"),
        (f"{QUIZ}doc_to_text: q\nmetric_list: [{{metric: bless}}]\n", "metric 'bless': is not one of lm_eval's"),
        (f"{QUIZ}doc_to_text: q\n".replace("json\n", "pandas\n", 1), "reads pickles"),
        (f"{QUIZ}doc_to_text: '{{{{q.__class__.__mro__}}}}'\n", "SecurityError"),
        (f"{QUIZ}doc_to_text: '{{{{question}}}}'\n", "'question' is undefined"),
        (f"{QUIZ}doc_to_text: q\nunsafe_code: true\n", "runs the programs that the model writes"),
        (f"{QUIZ}doc_to_text: q\n".replace("quiz.jsonl", "other.jsonl"), "there is no other.jsonl in"),
        (f"{TEXT}generation_kwargs: {{until: ['x'], temperature: 0.7}}\n", "temperature = 0.7: must be 0"),
        (f"{TEXT}generation_kwargs: {{until: ['x'], penalty: 2}}\n", "penalty = 2: is not known"),
        ("output_type: multiple_choice\n", "has no key 'task'"),
        ("task: [", "cannot be read as YAML"),
        ("- task", "must hold keys with values"),
        ("include: quiz.yaml\ntask: quiz\n", "includes itself"),
        (QUIZ.replace("json\n", "someone/hub_data\n", 1).replace("dataset_kwargs", "metadata"), "no network is used"),
    ],
)
def test_invalid_tasks_are_refused_in_one_sentence(text, told, quiz, tmp_path):
    with pytest.raises(ConfigError) as error:
        harness.load_tasks(quiz(text))
    assert told in str(error.value) and "\n" not in str(error.value)
    assert not (tmp_path / "has_run").exists()


def test_own_functions_are_allowed_by_a_flag(quiz):
    loaded = harness.load_tasks(quiz(f"include: base.yaml\n{QUIZ}"), own_functions=True)
    assert loaded.tasks["tasks"]["quiz"].doc_to_text({"q": "is it?"}) == "is it? (mine)"


def test_data_are_found_in_the_given_folder(quiz, tmp_path):
    path = quiz(f"{QUIZ}doc_to_text: q\n")
    (tmp_path / "data").mkdir()
    (tmp_path / "quiz.jsonl").rename(tmp_path / "data" / "quiz.jsonl")
    loaded = harness.load_tasks(path, [tmp_path / "data"])
    assert len(loaded.tasks["tasks"]["quiz"].eval_docs) == 1


@pytest.mark.parametrize(
    ("fixed", "asked", "found"), [("", 2, 2), ("num_fewshot: 0\n", 2, 0), ("num_fewshot: 3\n", None, 3)]
)
def test_the_number_of_examples(fixed, asked, found, quiz):
    loaded = harness.load_tasks(quiz(f"{QUIZ}doc_to_text: q\n{fixed}"), few_shot=asked)
    assert loaded.tasks["tasks"]["quiz"].get_config("num_fewshot") == found
    assert len(loaded.notes) == (fixed == "num_fewshot: 0\n")


def test_a_group_has_the_tasks_of_its_folder(quiz, tmp_path):
    quiz(f"{QUIZ}doc_to_text: q\n")
    (tmp_path / "base.yaml").unlink()
    group = tmp_path / "both.yaml"
    group.write_text("group: both\ntask: [quiz]\naggregate_metric_list: [{metric: acc}]\n")
    loaded = harness.load_tasks(str(group))
    assert list(loaded.tasks["tasks"]) == ["quiz"] and list(loaded.tasks["groups"]) == ["both"]
    (tmp_path / "base.yaml").write_text("task: other\ndoc_to_text: !function mine.text\n")
    with pytest.raises(ConfigError, match="would run Python code"):
        harness.load_tasks(str(group))


def test_a_model_of_pairs_has_no_likelihood_of_documents(quiz):
    path = quiz(f"task: quiz\n{DATA}output_type: loglikelihood_rolling\ndoc_to_text: ''\ndoc_to_target: '{{{{q}}}}'\n")
    with pytest.raises(ConfigError, match="likelihood of documents"):
        harness.load_tasks(path, continues=False)
    assert harness.load_tasks(path).tasks["tasks"]
