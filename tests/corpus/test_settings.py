"""The allowed values of a corpus's fields are declared once, beside their defaults."""

from gptjax.corpus.config import allowed, default
from gptjax.corpus.duplicates import find, passages, shingles
from gptjax.corpus.settings import Settings
from gptjax.settings import allowed_values


def test_declared_values_equal_those_of_the_modules():
    declared = {field: found.names for field, found in allowed_values(Settings).items()}
    assert declared["passages.kind"] == ("none", *passages.KINDS)
    assert declared["duplicates.scope"] == find.SCOPES and declared["duplicates.unit"] == shingles.UNITS
    assert allowed("split.by") == "auto | document | tail" and allowed("cleaning.repair") == ""


def test_every_default_is_allowed():
    config = default()
    for field, found in allowed_values(Settings).items():
        section, _, name = field.rpartition(".")
        value = (config[section] if section else config)[name]
        assert not found.names or value in found.names
        assert all(limit.holds(value) for limit in found.limits)
