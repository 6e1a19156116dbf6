"""Samples are chosen by a rule that depends on the run alone, and the rule is stated."""

import json

import pytest

from gptjax.config import default
from gptjax.reporting.samples import QUESTIONS, of_training, usual_prompts
from gptjax.settings import freeze


def config_of(path="", prompt=None):
    config = default()
    config.data.path = str(path)
    if prompt is not None:
        config.evaluation.sample_prompt = prompt
    return freeze(config)


def test_the_prompt_of_a_config_is_continued_with_several_seeds():
    prompts, how = usual_prompts(config_of(prompt="Once"), 3, is_chat=True)
    assert prompts == ["Once"] * 3 and how == "The prompt of the run's config with the seeds 0 to 2"


def test_a_run_on_conversations_is_asked_the_first_questions_of_a_fixed_list():
    prompts, how = usual_prompts(config_of(), 2, is_chat=True)
    assert prompts == list(QUESTIONS[:2]) and "first 2 questions of a fixed list" in how
    assert len(usual_prompts(config_of(), 100, is_chat=True)[0]) == len(QUESTIONS)


def test_a_run_on_pairs_gets_the_first_held_out_sources(tmp_path):
    pairs = [{"source": f"source {n}", "targets": ["t"]} for n in range(5)]
    (tmp_path / "validation.pairs.jsonl").write_text("".join(json.dumps(pair) + "\n" for pair in pairs))
    prompts, how = usual_prompts(config_of(tmp_path), 2, is_chat=False)
    assert prompts == ["source 0", "source 1"] and "first 2 held-out pairs" in how


@pytest.mark.parametrize("content", ["", "{", '{"no": 1}\n'])
def test_damaged_pairs_are_not_used(tmp_path, content):
    (tmp_path / "validation.pairs.jsonl").write_text(content)
    assert usual_prompts(config_of(tmp_path), 2, is_chat=False)[0] == ["\n"] * 2


def test_of_the_texts_of_training_the_first_the_middle_and_the_last_are_shown(tmp_path):
    (tmp_path / "samples").mkdir()
    for step in (10, 20, 30, 40, 50):
        (tmp_path / "samples" / f"step_{step:08d}.txt").write_text(f"text {step}")
    (tmp_path / "samples" / "step_other.txt").write_text("no")
    assert [each.text for each in of_training(tmp_path)] == ["text 10", "text 30", "text 50"]
    assert of_training(tmp_path / "nowhere") == []
