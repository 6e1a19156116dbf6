import importlib.util
import json

import pytest
from table_answerer import CHOICES, choice_rows, write_task

from gptjax.errors import ConfigError
from gptjax.evaluation.tasks import find_tasks


def loaded(path, **options):
    ((task,), _) = find_tasks(str(path), **options)
    return task


def test_examples_depend_only_on_seed_and_item(tmp_path):
    path = write_task(tmp_path, CHOICES + "few_shot = 3\n", choice_rows(20))
    task, again = loaded(path), loaded(path)
    examples = {item.id: [one.id for one in task.few_shot(item)] for item in task.items}
    assert examples == {item.id: [one.id for one in again.few_shot(item)] for item in again.items}
    assert all(len(set(ids)) == 3 and item not in ids for item, ids in examples.items())
    assert len({tuple(ids) for ids in examples.values()}) > 10  # each item draws its own examples
    few = loaded(path, limit=5)
    assert {item.id: [one.id for one in few.few_shot(item)] for item in few.items} == {
        item.id: examples[item.id] for item in few.items
    }
    other = loaded(path, seed=1)
    assert examples != {item.id: [one.id for one in other.few_shot(item)] for item in other.items}


def test_the_examples_of_an_item_never_change(tmp_path):
    """They are the same in any version of Python, so that a published score can be reproduced."""
    task = loaded(write_task(tmp_path, CHOICES + "few_shot = 3\n", choice_rows(20)))
    assert [one.number for one in task.few_shot(task.items[0])] == [15, 4, 17]


def test_a_prompt_shows_solved_examples_and_then_the_question(tmp_path):
    task = loaded(write_task(tmp_path, CHOICES + 'few_shot = 1\nseparator = "\\n--\\n"\n', choice_rows(2)))
    first, _, third = task.requests(task.items[0])
    assert first.context == "Question: what is 1?\nAnswer: nothing\n--\nQuestion: what is 0?\nAnswer: "
    assert (first.continuation, third.continuation) == ("it is 0", "a number such as 0")


def test_examples_from_a_separate_file(tmp_path):
    rows = choice_rows(4)
    (tmp_path / "dev.jsonl").write_text("".join(json.dumps(row | {"question": "solved?"}) + "\n" for row in rows))
    card = CHOICES + 'few_shot = 2\nfew_shot_file = "dev.jsonl"\n'
    task = loaded(write_task(tmp_path, card + 'few_shot_order = "first"\n', rows))
    assert [one.number for one in task.few_shot(task.items[3])] == [1, 2]
    task = loaded(write_task(tmp_path, card, rows))
    assert task.requests(task.items[0])[0].context.count("solved?") == 2
    with pytest.raises(ConfigError, match="too few rows"):
        loaded(write_task(tmp_path, card.replace("few_shot = 2", "few_shot = 5"), rows))
    (tmp_path / "dev.jsonl").unlink()
    task = loaded(write_task(tmp_path, card, rows), few_shot=0)  # needs no examples
    assert task.few_shot(task.items[0]) == []


@pytest.mark.parametrize(("metric", "library"), [("bleu", "sacrebleu"), ("rougeL", "rouge_score")])
def test_a_metric_whose_library_is_missing_is_refused_before_anything_is_written(
    metric, library, monkeypatch, tmp_path
):
    card = f'kind = "generation"\nprompt = "{{question}}"\nreferences = ["{{question}}"]\nmetrics = ["{metric}"]\n'
    path = str(write_task(tmp_path, card, choice_rows(3)))
    assert find_tasks(path)
    find_spec = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == library else find_spec(name))
    with pytest.raises(ConfigError, match=f"quiz: metrics: {metric} needs the package {library}: pip install"):
        find_tasks(path)


def test_an_item_is_never_its_own_example_even_with_all_others(tmp_path):
    path = write_task(tmp_path, CHOICES + "few_shot = 3\n", choice_rows(4))
    task = loaded(path)
    for item in task.items:
        assert {one.id for one in task.few_shot(item)} == {one.id for one in task.items} - {item.id}
    with pytest.raises(ConfigError, match="few_shot = 4"):
        loaded(path, few_shot=4)


def test_a_limit_chooses_by_seed_and_a_larger_one_adds(tmp_path):
    path = write_task(tmp_path, CHOICES, choice_rows(30))
    few, more = (loaded(path, limit=limit) for limit in (5, 12))
    assert len(few.items) == 5 and few.total == 30
    assert {item.id for item in few.items} < {item.id for item in more.items}
    assert [item.number for item in few.items] != [1, 2, 3, 4, 5]


def test_members_from_files_draw_their_own_examples(tmp_path):
    for member in ("art", "law"):
        for split in ("test", "dev"):
            rows = [{**row, "question": f"{member} {split} {row['question']}"} for row in choice_rows(3)]
            (tmp_path / f"{member}_{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    card = tmp_path / "exam.toml"
    card.write_text(
        'file = "*_test.jsonl"\nfew_shot_file = "{member}_dev.jsonl"\nfew_shot_order = "first"\nfew_shot = 1\n'
        + CHOICES
    )
    task = loaded(card)
    assert [item.member for item in task.items] == ["art"] * 3 + ["law"] * 3
    for item in task.items:
        context = task.requests(item)[0].context
        assert f"{item.member} dev" in context and f"{item.member} test" in context
        assert len({word for word in ("art", "law") if word in context}) == 1


def test_members_by_a_field(tmp_path):
    rows = [{**row, "subject": "ab"[k % 2]} for k, row in enumerate(choice_rows(6))]
    task = loaded(write_task(tmp_path, CHOICES + 'group = "subject"\nfew_shot = 2\n', rows))
    for item in task.items:
        assert {one.member for one in task.few_shot(item)} == {item.member}


def test_data_are_found_in_the_given_folder_its_subfolders_or_beside_the_card(tmp_path):
    data, cards = tmp_path / "data", tmp_path / "cards"
    (data / "inner").mkdir(parents=True)
    cards.mkdir()
    path = write_task(cards, CHOICES, choice_rows(3))
    assert len(loaded(path).items) == 3
    write_task(data / "inner", CHOICES, choice_rows(4))
    assert len(loaded(path, data=[data]).items) == 4
    write_task(data, CHOICES, choice_rows(5))
    assert len(loaded(path, data=[data]).items) == 5


def test_missing_data_are_reported_with_the_searched_folders_and_the_source(tmp_path):
    with pytest.raises(ConfigError, match=r"there is no hellaswag/.*--task_data=FOLDER.*rowanz/hellaswag"):
        find_tasks("hellaswag")
    with pytest.raises(ConfigError, match="must be a folder"):
        find_tasks("hellaswag", [tmp_path / "nowhere"])


def test_the_hash_covers_every_part_of_a_prompt(tmp_path):
    rows = choice_rows(6)
    path = write_task(tmp_path, CHOICES, rows)
    hashes = {
        loaded(path, **change).prompts_hash() for change in ({}, {"few_shot": 2}, {"limit": 3}, {"delimiter": "\n"})
    }
    rows[0]["choices"][1] = "something"
    assert len(hashes | {loaded(write_task(tmp_path, CHOICES, rows)).prompts_hash()}) == 5
