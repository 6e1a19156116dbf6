"""Every field of both configs has a meaning, which is read from its declaration."""

import pytest
from ml_collections import ConfigDict

import gptjax.config
import gptjax.corpus.config
from gptjax.command_line.help import config_help
from gptjax.config import flatten
from gptjax.config.meanings import described

CONFIGS = [gptjax.config.default, gptjax.corpus.config.default]


@pytest.mark.parametrize("make", CONFIGS)
def test_every_field_has_a_meaning(make):
    fields = {field.name: field for field in described(make)}
    assert {name: field.default for name, field in fields.items()} == flatten(make())
    assert [name for name, field in fields.items() if not field.meaning] == []


def test_comments_give_the_meaning_of_fields_and_checks_the_allowed_values():
    fields = {field.name: field for field in described(gptjax.config.default)}
    assert fields["model.width"].meaning.startswith("D") and fields["model.width"].allowed.startswith("at least 1")
    assert fields["model.norm"].allowed == "rmsnorm | layernorm" and fields["model.dropout"].allowed == "in [0, 1)"
    corpus = {field.name: field for field in described(gptjax.corpus.config.default)}
    assert corpus["cleaning.repair"].meaning.startswith("repair encodings")  # of a section that is defined elsewhere
    assert (
        corpus["cleaning.c4.min_sentences"].meaning == "a document exactly at this threshold is kept"
    )  # of a group that has one comment


def made_here():
    return ConfigDict(
        dict(
            # stands above,
            # in two lines
            one=1,  # and beside
            two=2,  # of two alone
        )
    )


def test_comments_above_a_field_belong_only_to_that_field():
    assert [field.meaning for field in described(made_here)] == [
        "stands above, in two lines and beside",
        "of two alone",
    ]


def test_help_lists_a_section_or_a_field_and_the_sections_for_an_unknown_name(monkeypatch):
    monkeypatch.setenv("COLUMNS", "60")
    text = config_help(gptjax.config.default, "optimizer")
    assert "--config.optimizer.learning_rate=0.001\n      the highest rate of the schedule (positive)" in text
    assert "--config.model" not in text and max(map(len, text.splitlines())) <= 62
    assert config_help(gptjax.config.default, "width").count("--config.") == 1
    assert "the sections are checkpoint, data, " in config_help(gptjax.config.default, "optimiser")
