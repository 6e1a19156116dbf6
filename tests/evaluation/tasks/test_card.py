import pytest
from table_answerer import CHOICES

from gptjax.errors import ConfigError
from gptjax.evaluation.tasks import card, core
from gptjax.evaluation.tasks.card import CardSettings
from gptjax.evaluation.tasks.kinds import KINDS
from gptjax.evaluation.tasks.metrics import METRICS


def write(folder, text):
    path = folder / "mine.toml"
    path.write_text(text)
    return path


@pytest.mark.parametrize("name", card.shipped())
def test_cards_of_the_project_are_valid_and_name_the_source_of_their_data(name):
    settings = card.read(card.shipped()[name]).settings
    assert settings.about.endswith((".", "?", ")")) and settings.source
    assert settings.kind == "generation" or settings.baseline or settings.kind == "continuation"


def test_all_metrics_can_be_shown():
    assert {metric for kind in KINDS.values() for metric in kind.allowed} == set(METRICS)


def test_core_consists_of_cards():
    """Numbers of examples and guessing accuracies are those of the published list."""
    assert len(core.TASKS) == 22
    for name, (few_shot, metric, guessing) in core.TASKS.items():
        found = card.read(card.shipped()[name])
        assert (found.settings.few_shot, found.settings.baseline) == (few_shot, guessing)
        assert metric in found.metrics


BASE = 'file = "data.jsonl"\n' + CHOICES


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (BASE + 'promt = "x"\n', "promt.*did you mean prompt"),
        (BASE.replace("multiple_choice", "multiple_choise"), "did you mean multiple_choice"),
        (BASE.replace('kind = "multiple_choice"', ""), "kind: is missing"),
        (BASE.replace('file = "data.jsonl"', ""), "file: is missing"),
        (BASE.replace('answer = "{gold}"', ""), "answer: is missing"),
        (BASE + 'few_shot = "3"\n', "few_shot = '3': must be a whole number"),
        (BASE + "few_shot = -1\n", "few_shot = -1: must not be negative"),
        (BASE + "strip = 1\n", "strip = 1: must be true or false"),
        (BASE.replace('["{choices}"]', '"{choices}"'), "choices = '{choices}': must be a list of texts"),
        (BASE.replace('["{choices}"]', "[1]"), "must be a list of texts"),
        (BASE + 'reader = "json"\n', "did you mean jsonl"),
        (BASE + 'metrics = ["acuracy"]\n', "did you mean accuracy"),
        (BASE + 'metrics = ["bleu"]\n', "has no 'bleu'"),
        (BASE + 'references = ["x"]\n', "references: kind 'multiple_choice' does not use it"),
        (BASE.replace("{question}", "{question"), "prompt ="),
        (BASE + 'few_shot_order = "first"\n', "needs few_shot_file"),
        (BASE + 'few_shot_file = "data.jsonl"\n', "few_shot_file: is the file of the items"),
        (BASE + 'group = "{subject}"\n', r"group = '\{subject\}': must be the name of a field, without braces"),
        (BASE + 'group = "my:field"\n', "group = 'my:field': must be the name of a field"),
        (BASE + 'hub = "x/y"\n', r"hub = 'x/y': must be a table, \[hub\]"),
        (BASE + 'hub = {dataset = "x/y"}\n', "needs both"),
        (BASE + 'hub = {datset = "x/y"}\n', "hub.datset.*did you mean dataset"),
        ("kind =\n", "is not TOML"),
        ('kind = "generation"\nfile = "x"\nprompt = "p"\nreferences = ["{a}"]\n', "metrics: is missing"),
    ],
)
def test_an_invalid_card_is_refused_in_one_sentence(text, told, tmp_path):
    with pytest.raises(ConfigError, match=told) as error:
        card.read(write(tmp_path, text))
    assert "mine.toml" in str(error.value) and "\n" not in str(error.value).strip()


def test_settings_can_be_replaced_and_change_the_hash(tmp_path):
    path = write(tmp_path, BASE)
    assert card.read(path).hash == card.read(path, few_shot=0).hash
    changed = card.read(path, few_shot=3)
    assert changed.settings.few_shot == 3 and changed.hash != card.read(path).hash


def test_cards_are_found_by_name_and_by_path(tmp_path):
    assert card.find("hellaswag", "--tasks").name == "hellaswag.toml"
    assert card.find(str(write(tmp_path, BASE)), "--tasks") == tmp_path / "mine.toml"
    for name, told in (("helaswag", "did you mean hellaswag"), ("no/such.toml", "no such file"), ("./", "a folder")):
        with pytest.raises(ConfigError, match=told):
            card.find(name, "--tasks")


def test_every_key_of_a_card_is_explained():
    import inspect

    source = inspect.getsource(card)
    for name in CardSettings().keys():
        line = next(line for line in source.splitlines() if line.strip().startswith(f"{name}:"))
        before = source.splitlines()[source.splitlines().index(line) - 1]
        assert "#" in line or before.strip().startswith("#") or name == "hub", line
