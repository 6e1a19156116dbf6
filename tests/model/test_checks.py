"""Combinations of model fields that a family refuses."""

import pytest

from gptjax import config as configs
from gptjax.config import ConfigError, default
from gptjax.data.facts import DataFacts
from gptjax.model.families import FAMILIES, validate_model
from gptjax.parallel.mesh import AbstractDevices
from gptjax.planning import plan


def changed(fields):
    config = default()
    for field, value in fields.items():
        section, name = field.split("__")
        config[section][name] = value
    return config


@pytest.mark.parametrize(
    "fields, message",
    [
        (dict(model__num_heads=5), r"model\.width = 384: must be divisible by model\.num_heads = 5"),
        (dict(model__num_kv_heads=4), r"model\.num_heads = 6: must be divisible by model\.num_kv_heads = 4"),
        (dict(model__head_width=7), r"head width 7 must be even"),
        (dict(model__width=9, model__num_heads=1, model__position="sinusoidal"), r"even model\.width, got 9"),
        (dict(model__window=8), r"a window needs layers marked S"),
        (dict(model__window_pattern="SL"), r"layers marked S need a window"),
        (dict(model__window_pattern="XL"), r"must be made of S"),
        (dict(model__window_pattern="LN", model__position="learned"), r"layers marked N.* need 'rope'"),
        (dict(model__rope_fraction=0.01), r"model\.rope_fraction = 0\.01 of it"),
        (
            dict(model__rope_scaling="longrope"),
            r"rope_feature_factors has 0 numbers: .* one for each of 32 rotated pairs",
        ),
        (dict(model__rope_feature_factors=(1.0, -1.0)), r"rope_feature_factors = \(1\.0, -1\.0\): must be positive"),
        (dict(model__rope_local_theta=1e4), r"rope_local_theta = 10000\.0: no layer is marked S"),
        (dict(model__bias="qkv+head"), r"model\.bias = 'qkv\+head': expected none, all, or some of qkv, output, feed"),
        (dict(model__window_pattern=""), r"must be made of S"),
        (dict(model__max_positions=128), r"data\.sequence_length = 256: must not exceed model\.max_positions = 128"),
        (
            dict(model__width=2**31 - 1, model__num_heads=1, model__position="none"),
            r"model of about 3\.3e\+20 parameters",
        ),
    ],
)
def test_fields_that_contradict_each_other_are_refused_at_once_and_in_a_plan(fields, message):
    config = changed(fields)
    configs.validate(config)  # each value is valid on its own
    with pytest.raises(ConfigError, match=message):
        validate_model(config)
    with pytest.raises(ConfigError, match=message):
        plan(config, DataFacts(100), AbstractDevices("gpu", 1, "NVIDIA H200"))


def test_a_family_has_its_own_rules(monkeypatch):
    """A family whose model has no heads and no windows does not check their fields."""
    config = changed(dict(model__family="bag_of_tokens:BagFamily", model__num_heads=5, model__window=8))
    validate_model(config)
    config.model.dropout = 0.1
    with pytest.raises(ConfigError, match=r"model.dropout = 0.1: a bag of tokens has none"):
        validate_model(config)
    for family in FAMILIES:
        config.model.family = family
        with pytest.raises(ConfigError, match=r"model.num_heads = 5"):
            validate_model(config)
