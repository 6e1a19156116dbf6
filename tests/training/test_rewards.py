"""Rewards that can be verified."""

import pytest

from gptjax.config import ConfigError
from gptjax.training.rewards import exact, final_number, reward_named


@pytest.mark.parametrize(
    "text, answer, expected",
    [
        ("so 12 apples", "#### 12", 1),
        ("6 x 2 = 12, and 3 more\n#### 15", "15", 1),
        ("#### 15 apples and 3 pears", "15", 1),  # the first number after the mark
        ("1,234.50", "1234.5", 1),
        ("-7", "7", 0),
        ("a 15 is in the middle, then 16", "15", 0),
        ("no number", "15", 0),
        ("####", "15", 0),
        ("no number", "none either", 0),
    ],
)
def test_the_final_number_counts(text, answer, expected):
    assert final_number("How many?", text, answer) == expected


def test_exact_ignores_spaces_around_the_answer():
    assert (exact("", " 12\n", "12"), exact("", "1 2", "12")) == (1, 0)


def test_a_users_own_reward_is_imported(tmp_path, monkeypatch):
    (tmp_path / "own_rewards.py").write_text("def short(prompt, text, answer): return -len(text)\nnothing = 1\n")
    monkeypatch.syspath_prepend(tmp_path)
    assert reward_named("own_rewards:short")("", "four", "") == -4.0
    with pytest.raises(ConfigError, match=r"training.reward = 'own_rewards:missing'"):
        reward_named("own_rewards:missing")
