import json
import math
import threading
import time

import pytest
from table_answerer import CHOICES, TableAnswerer, choice_rows, write_task

from gptjax.evaluation.tasks import Subject, find_tasks, run_tasks
from gptjax.evaluation.tasks.contamination import TrainingText
from gptjax.evaluation.tasks.records import Records

ROWS = 9


@pytest.fixture
def tasks(tmp_path):
    return find_tasks(str(write_task(tmp_path, CHOICES, choice_rows(ROWS))))[0]


def without_times(results):
    return {name: {**result, "seconds": 0, "asked": 0} for name, result in results.items()}


def lines(folder):
    return (folder / "items" / "quiz.jsonl").read_text().splitlines()


def test_a_killed_evaluation_continues_where_it_stopped(tasks, tmp_path):
    whole = run_tasks(tasks, TableAnswerer(), Subject({"step": 1}), tmp_path / "whole")
    killed = TableAnswerer(stop_after=17)
    with pytest.raises(KeyboardInterrupt):
        run_tasks(tasks, killed, Subject({"step": 1}), tmp_path / "killed")
    assert len(lines(tmp_path / "killed")) == 1 + 17 // 3
    rest = TableAnswerer()
    again = run_tasks(tasks, rest, Subject({"step": 1}), tmp_path / "killed")
    assert len(rest.asked) == 3 * (ROWS - 17 // 3) and again["quiz"]["asked"] == ROWS - 17 // 3
    assert without_times(again) == without_times(whole)
    assert lines(tmp_path / "killed") == lines(tmp_path / "whole")


def test_records_are_kept_while_another_form_of_the_task_is_evaluated(tasks, tmp_path):
    few, _ = find_tasks(str(tmp_path / "quiz.toml"), few_shot=1, limit=2)
    whole = run_tasks(tasks, TableAnswerer(), Subject({}), tmp_path)
    run_tasks(few, TableAnswerer(), Subject({}), tmp_path)
    for again in (tasks, few, tasks):
        answerer = TableAnswerer()
        found = run_tasks(again, answerer, Subject({}), tmp_path)
        assert not answerer.asked
        assert again is few or without_times(found) == without_times(whole)
    assert len(list((tmp_path / "items").glob("*.jsonl"))) == 2
    read_only = TableAnswerer()
    run_tasks(few, read_only, Subject({}), tmp_path, writes=False)
    assert not read_only.asked


@pytest.mark.parametrize("cut", [1, 40, -1])
def test_the_item_of_an_incomplete_line_is_computed_again(cut, tasks, tmp_path):
    whole = run_tasks(tasks, TableAnswerer(), Subject({}), tmp_path)
    before = lines(tmp_path)
    path = tmp_path / "items" / "quiz.jsonl"
    last = len(before[-1]) + 1
    path.write_bytes(path.read_bytes()[:-last] + (before[-1] + "\n").encode()[:cut])
    answerer = TableAnswerer()
    assert without_times(run_tasks(tasks, answerer, Subject({}), tmp_path)) == without_times(whole)
    assert len(answerer.asked) == 3 and lines(tmp_path) == before


@pytest.mark.parametrize("change", ["checkpoint", "card", "data"])
def test_records_with_other_dependencies_are_not_used(change, tasks, tmp_path):
    run_tasks(tasks, TableAnswerer(), Subject({"step": 1}), tmp_path)
    path = tmp_path / "quiz.toml"
    if change == "card":
        tasks, _ = find_tasks(str(path), delimiter="\n")
    if change == "data":
        write_task(tmp_path, CHOICES, choice_rows(ROWS)[::-1])
        tasks, _ = find_tasks(str(path))
    answerer = TableAnswerer()
    run_tasks(tasks, answerer, Subject({"step": 2 if change == "checkpoint" else 1}), tmp_path)
    assert len(answerer.asked) == 3 * ROWS


def test_a_larger_limit_computes_only_new_items(tasks, tmp_path):
    few, _ = find_tasks(str(tmp_path / "quiz.toml"), limit=4)
    run_tasks(few, TableAnswerer(), Subject({}), tmp_path)
    answerer = TableAnswerer()
    result = run_tasks(tasks, answerer, Subject({}), tmp_path)["quiz"]
    assert len(answerer.asked) == 3 * (ROWS - 4) and result["items"] == ROWS
    answerer = TableAnswerer()
    again = run_tasks(few, answerer, Subject({}), tmp_path)["quiz"]
    assert not answerer.asked and (again["items"], again["of"]) == (4, ROWS)
    assert len(lines(tmp_path)) == 1 + ROWS  # no record is lost


def test_all_processes_compute_the_same_items_although_one_writes(tasks, tmp_path):
    few, _ = find_tasks(str(tmp_path / "quiz.toml"), limit=4)
    run_tasks(few, TableAnswerer(), Subject({}), tmp_path)
    before = lines(tmp_path)
    reader, writer = TableAnswerer(), TableAnswerer()
    read = run_tasks(tasks, reader, Subject({}), tmp_path, writes=False)
    assert lines(tmp_path) == before
    assert without_times(read) == without_times(run_tasks(tasks, writer, Subject({}), tmp_path))
    assert reader.asked == writer.asked


def test_a_second_process_waits_and_then_finds_the_records(tasks, tmp_path, caplog):
    path, found = tmp_path / "items" / "quiz.jsonl", []

    def second():
        with Records(path, {"step": 1}) as records:
            found.extend(records.found)

    thread = threading.Thread(target=second)
    with Records(path, {"step": 1}) as records:
        thread.start()
        while thread.is_alive() and "another process is writing this file" not in caplog.text:
            time.sleep(0.01)
        records.add({"item": "one"})
    thread.join()
    assert found == ["one"]


def test_what_only_texts_depend_on_changes_no_other_records(tmp_path):
    written = 'kind = "generation"\nprompt = "{question}"\nreferences = ["x"]\nmetrics = ["exact_match"]\n'
    paths = [write_task(tmp_path, CHOICES, choice_rows(3)), write_task(tmp_path, written, choice_rows(3), "written")]
    tasks, _ = find_tasks(",".join(map(str, paths)))
    run_tasks(tasks, TableAnswerer(), Subject({}, writing={"num_beams": 0}), tmp_path)
    results = run_tasks(tasks, TableAnswerer(), Subject({}, writing={"num_beams": 4}), tmp_path)
    assert [results[name]["asked"] for name in ("quiz", "written")] == [0, 3]
    assert results["written"]["writing"] == {"num_beams": 4} and "writing" not in results["quiz"]


def test_a_record_has_requests_and_answers(tmp_path):
    path = write_task(tmp_path, CHOICES + "few_shot = 2\n", choice_rows(ROWS))
    run_tasks(find_tasks(str(path))[0], TableAnswerer(), Subject({"step": 1}), tmp_path)
    header, first, *rest = map(json.loads, lines(tmp_path))
    assert header["made_with"]["step"] == 1 and len(rest) == ROWS - 1
    assert first["item"] == "quiz.jsonl:1" and first["prompt"] == "Question: what is 0?\nAnswer:"
    assert len(first["examples"]) == 2 and len(first["nats"]) == 3 and first["right"] == 0


def test_progress_counts_items(tasks, tmp_path):
    told = []
    run_tasks(tasks, TableAnswerer(), Subject({}), None, lambda *step: told.append(step))
    assert told == [("quiz", done, ROWS) for done in range(ROWS + 1)]


def test_nothing_is_written_without_a_folder(tasks, tmp_path):
    before = sorted(tmp_path.rglob("*"))
    result = run_tasks(tasks, TableAnswerer(), Subject({}), None)["quiz"]
    assert result["items"] == ROWS and sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize("average", ["items", "members"])
def test_a_task_with_members_is_one_row_and_lists_its_members(average, tmp_path):
    rows = [{**row, "subject": "a" if k < 2 else "b"} for k, row in enumerate(choice_rows(6))]
    right = {(f"what is {k}?\nAnswer:", row["choices"][row["gold"]]): 0.0 for k, row in enumerate(rows) if k >= 2}
    wrong = {(f"what is {k}?\nAnswer:", rows[k]["choices"][2]): 0.0 for k in (0, 1)}
    path = write_task(tmp_path, CHOICES + f'group = "subject"\naverage = "{average}"\n', rows)
    result = run_tasks(find_tasks(str(path))[0], TableAnswerer(right | wrong), Subject({}), None)["quiz"]
    accuracy = {name: member["scores"]["accuracy"]["value"] for name, member in result["members"].items()}
    assert accuracy == {"a": 0, "b": 1}
    assert result["scores"]["accuracy"]["value"] == pytest.approx(4 / 6 if average == "items" else 1 / 2)
    assert sum(member["items"] for member in result["members"].values()) == result["items"] == 6


def test_contaminated_items_are_counted_and_the_clean_ones_scored(tasks):
    wrong = {
        (f"what is {k}?\nAnswer:", row["choices"][(row["gold"] + 1) % 3]): 0.0
        for k, row in enumerate(choice_rows(ROWS))
    }
    right = {(f"what is {k}?\nAnswer:", choice_rows(ROWS)[k]["choices"][k % 3]): 1.0 for k in (0, 1, 2)}
    known = {"quiz": {"quiz.jsonl:1": 4, "quiz.jsonl:3": 1, "quiz.jsonl:5": 0, "other.jsonl:2": 9}}
    subject = Subject({}, TrainingText(frozenset({"quiz"}), known, 13))
    result = run_tasks(tasks, TableAnswerer(right | wrong), subject, None)["quiz"]
    found = result["contamination"]
    assert (found["contaminated"], found["clean"], found["ngrams"], found["ngram"]) == (2, ROWS - 2, 5, 13)
    assert result["scores"]["accuracy"]["value"] == pytest.approx(3 / ROWS)
    assert found["clean_scores"]["accuracy"]["value"] == pytest.approx(1 / (ROWS - 2))


def test_scores_of_the_clean_items_are_averaged_as_those_of_all(tmp_path):
    rows = [{**row, "subject": "a" if k < 2 else "b"} for k, row in enumerate(choice_rows(6))]
    tasks, _ = find_tasks(str(write_task(tmp_path, CHOICES + 'group = "subject"\naverage = "members"\n', rows)))
    subject = Subject({}, TrainingText(frozenset({"quiz"}), {"quiz": {}}, 13, too_short={"quiz": 2}))
    result = run_tasks(tasks, TableAnswerer(), subject, None)["quiz"]
    assert result["contamination"]["clean_scores"] == result["scores"] and result["contamination"]["too_short"] == 2


def test_a_set_without_comparison_has_no_contamination_result(tasks):
    assert run_tasks(tasks, TableAnswerer(), Subject({}), None)["quiz"]["contamination"] is None


@pytest.mark.filterwarnings("ignore:invalid value:RuntimeWarning")  # the standard error of infinite values
def test_records_of_infinite_values_are_json_and_read_back(tmp_path):
    card = 'kind = "continuation"\nprompt = "{question}"\ncontinuation = "{choices[0]}"\n'
    tasks, _ = find_tasks(str(write_task(tmp_path, card, choice_rows(3))))
    impossible = TableAnswerer(nats={("what is 0?", "it is 0"): -math.inf})
    found = run_tasks(tasks, impossible, Subject({}), tmp_path)["quiz"]["scores"]
    again = run_tasks(tasks, TableAnswerer(stop_after=0), Subject({}), tmp_path)["quiz"]["scores"]
    for metric in ("perplexity", "bits_per_byte"):
        assert found[metric]["value"] == again[metric]["value"] == math.inf
    records = [json.loads(line, parse_constant=pytest.fail) for line in lines(tmp_path)[1:]]
    assert [record["nats"] == "-Infinity" for record in records] == [True, False, False]


def test_classes_have_a_confusion_matrix(tmp_path):
    card = CHOICES.replace('choices = ["{choices}"]', 'choices = ["no", "yes"]\nlabels = ["ham", "spam"]')
    card += 'metrics = ["macro_f1", "accuracy"]\n'
    rows = [{"question": f"what is {k}?", "gold": ["ham", "spam"][k % 2]} for k in range(6)]
    nats = {(f"what is {k}?\nAnswer:", "yes"): 0.0 if k > 2 else -99.0 for k in range(6)}
    result = run_tasks(find_tasks(str(write_task(tmp_path, card, rows)))[0], TableAnswerer(nats), Subject({}), None)
    assert result["quiz"]["confusion"] == {"labels": ["ham", "spam"], "counts": [[2, 1], [1, 2]]}
    assert result["quiz"]["scores"]["accuracy"]["value"] == pytest.approx(4 / 6)
