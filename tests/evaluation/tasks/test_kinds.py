import math

import pytest
from table_answerer import TableAnswerer, write_task

from gptjax.errors import ConfigError
from gptjax.evaluation.tasks import Subject, find_tasks, run_tasks
from gptjax.evaluation.tasks.kinds import WrongAnswer, right_one


def records_of(path, answerer, folder):
    tasks, _ = find_tasks(str(path))
    run_tasks(tasks, answerer, Subject({}), folder)
    from gptjax.evaluation.tasks.records import read

    return list(read(folder / "items" / f"{path.stem}.jsonl")[1].values())


CHOICE = 'kind = "multiple_choice"\nprompt = "{q}"\nchoices = ["{c}"]\nanswer = "{gold}"\n'


def test_choices_are_normalized_by_tokens_and_by_bytes(tmp_path):
    """Three measures choose three different answers."""
    rows = [{"q": "Which?", "c": ["no", "incomprehensibilities", "a b c d e f g"], "gold": 0}]
    nats = {("Which?", "no"): -3.0, ("Which?", "incomprehensibilities"): -4.0, ("Which?", "a b c d e f g"): -7.7}
    path = write_task(tmp_path, CHOICE, rows)
    (record,) = records_of(path, TableAnswerer(nats), tmp_path / "out")
    assert record["chosen"] == 0
    by = {name: record[name] for name in ("accuracy", "accuracy_per_token", "accuracy_per_byte")}
    # per token: -3, -4, -1.1; per byte: -1.5, -0.19, -0.59
    assert by == {"accuracy": 1, "accuracy_per_token": 0, "accuracy_per_byte": 0}
    assert record["bits_per_byte"] == pytest.approx(3 / math.log(2) / 2)
    for gold, expected in ((1, (0, 0, 1)), (2, (0, 1, 0))):
        path = write_task(tmp_path, CHOICE, [{**rows[0], "gold": gold}], f"quiz{gold}")
        (record,) = records_of(path, TableAnswerer(nats), tmp_path / "out")
        assert tuple(record[name] for name in by) == expected


def test_bytes_are_not_characters(tmp_path):
    """Per byte, the first is more likely (-4 / 6 and -3.2 / 4); per character, the second."""
    nats = {("?", "ééé"): -4.0, ("?", "abcd"): -3.2}
    path = write_task(tmp_path, CHOICE, [{"q": "?", "c": ["ééé", "abcd"], "gold": 0}])
    (record,) = records_of(path, TableAnswerer(nats), tmp_path / "out")
    assert record["accuracy_per_byte"] == 1 and record["accuracy"] == 0


def test_equally_likely_choices_count_as_equal_fractions(tmp_path):
    rows = [{"q": "?", "c": ["a", "b", "c", "d"], "gold": 2}]
    nats = {("?", "a"): -9.0, ("?", "b"): -1.0, ("?", "c"): -1.0, ("?", "d"): -9.0}
    (record,) = records_of(write_task(tmp_path, CHOICE, rows), TableAnswerer(nats), tmp_path / "out")
    assert record["accuracy"] == 0.5 and record["chosen"] == 1


def test_a_nan_score_is_not_a_right_answer(tmp_path):
    rows = [{"q": "?", "c": ["a", "b"], "gold": 0}]
    for place, (a, b) in enumerate([(math.nan, math.nan), (-1.0, math.nan), (math.nan, -1.0)]):
        path = write_task(tmp_path, CHOICE, rows, f"quiz{place}")
        (record,) = records_of(path, TableAnswerer({("?", "a"): a, ("?", "b"): b}), tmp_path / "out")
        assert record["accuracy"] == 0


def test_a_schema_compares_contexts_by_the_same_continuation(tmp_path):
    card = 'kind = "schema"\ncontexts = ["{options}"]\ncontinuation = "{end}"\nanswer = "{gold}"\n'
    rows = [{"options": ["the trophy", "the suitcase"], "end": "is too small.", "gold": 1}]
    answerer = TableAnswerer({("trophy", "is too small."): -5.0, ("suitcase", "is too small."): -2.0})
    (record,) = records_of(write_task(tmp_path, card, rows), answerer, tmp_path / "out")
    assert record["accuracy"] == 1 and record["nats"] == [-5.0, -2.0]
    assert {request.context for request in answerer.asked} == {"the trophy ", "the suitcase "}
    assert record["bits_per_byte"] == pytest.approx(2 / math.log(2) / len("is too small."))


def test_a_continuation_is_right_if_every_token_is_the_most_likely_one(tmp_path):
    card = 'kind = "continuation"\nprompt = "{context}"\ncontinuation = "{end}"\n'
    rows = [{"context": "one", "end": "two"}, {"context": "three", "end": "four"}]
    answerer = TableAnswerer({("one", "two"): -1.0, ("three", "four"): -3.0}, greedy=["two"])
    tasks, _ = find_tasks(str(write_task(tmp_path, card, rows)))
    scores = run_tasks(tasks, answerer, Subject({}), None)["quiz"]["scores"]
    assert scores["accuracy"] == {"value": 0.5, "standard_error": 0.5}
    assert scores["perplexity"]["value"] == pytest.approx(math.exp(2))  # per continuation, like LAMBADA's per word
    assert scores["perplexity"]["standard_error"] == pytest.approx(math.exp(2))


def test_a_generation_is_compared_with_all_references(tmp_path):
    card = (
        'kind = "generation"\nprompt = "{q}"\nreferences = ["{a}"]\nmetrics = ["squad_f1", "rougeL", "final_number"]\n'
    )
    rows = [{"q": "How many?", "a": ["12 apples", "a dozen"]}, {"q": "Who?", "a": "Ada"}]
    answerer = TableAnswerer(texts={"How many?": " the dozen\n", "Who?": "Ada"})
    first, second = records_of(write_task(tmp_path, card, rows), answerer, tmp_path / "out")
    assert first["squad_f1"] == 1 and first["rougeL"] == 0.5 and first["final_number"] == 0
    assert second["text"] == "Ada" and second["squad_f1"] == 1


@pytest.mark.parametrize(
    ("answer", "labels", "number"),
    [("2", (), 2), ("C", (), 2), ("ham", ("spam", "ham", "eggs"), 1), ("0", ("1", "0", "2"), 1)],
)
def test_the_right_choice_is_a_number_a_letter_or_a_label(answer, labels, number):
    assert right_one(answer, labels, 3) == number


@pytest.mark.parametrize(("answer", "labels"), [("3", ()), ("-1", ()), ("D", ()), ("", ()), ("0", ("a", "b", "c"))])
def test_an_answer_outside_of_the_choices_is_refused(answer, labels):
    with pytest.raises(WrongAnswer):
        right_one(answer, labels, 3)


def test_labels_must_name_all_choices():
    with pytest.raises(WrongAnswer, match="has 3 choices, but labels names only ham, spam"):
        right_one("ham", ("ham", "spam"), 3)


@pytest.mark.parametrize(
    ("row", "told"),
    [
        ({"q": "x", "c": ["a", "b"], "gold": 5}, "row 2: answer is '5'"),
        ({"q": "x", "gold": 0}, "row 2: has no field 'c'"),
    ],
)
def test_an_invalid_row_is_refused_with_its_number(row, told, tmp_path):
    good = {"q": "x", "c": ["a", "b"], "gold": 0}
    with pytest.raises(ConfigError, match=told):
        find_tasks(str(write_task(tmp_path, CHOICE, [good, row])))


@pytest.mark.parametrize(
    ("card", "row", "reason"),
    [
        (CHOICE, {"q": "x", "c": ["a", " "], "gold": 0}, "empty choice"),
        (CHOICE, {"q": "x", "c": ["a"], "gold": 0}, "a single choice"),
        (
            'kind = "generation"\nprompt = "{q}"\nreferences = ["{c}"]\nmetrics = ["exact_match"]\n',
            {"q": "x", "c": ["", " "]},
            "empty reference",
        ),
        ('kind = "continuation"\nprompt = "{q}"\ncontinuation = "{c}"\n', {"q": "x", "c": ""}, "empty continuation"),
        ('kind = "continuation"\nprompt = "{q}"\ncontinuation = "{c}"\n', {"q": "", "c": "x"}, "empty prompt"),
        (CHOICE, {"q": "\ud83d", "c": ["a", "b"], "gold": 0}, "text that is not Unicode"),
    ],
)
def test_unusable_rows_are_left_out_and_counted(card, row, reason, tmp_path):
    good = {"q": "x", "c": ["a", "b"], "gold": 0}
    ((task,), _) = find_tasks(str(write_task(tmp_path, card, [row, good, row])))
    assert task.skipped == {reason: 2} and len(task.items) == 1
    with pytest.raises(ConfigError, match=reason):
        find_tasks(str(write_task(tmp_path, card, [row])))
