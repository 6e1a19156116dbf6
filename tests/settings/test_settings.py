"""A field is declared once: defaults, flags, checks and help follow from its declaration, and settings are typed."""

import dataclasses
import typing

import pytest

from gptjax import settings
from gptjax.config import ConfigError, allowed, default, flatten, from_json, hash_of, to_json, validate
from gptjax.data.dataset import TEXT_WINDOWS
from gptjax.model import position_bias
from gptjax.model.feedforward import ACTIVATIONS
from gptjax.settings import ModelSettings, Settings, allowed_values, freeze, thaw
from gptjax.training.optimizers import schedule, treatments


def test_settings_equal_the_config_that_they_freeze():
    config = default()
    config.model.update(width=96, dropout=0.5)
    config.optimizer.rules = (("head", "learning_rate", 0.3),)
    frozen = freeze(config)
    assert (frozen.model.width, frozen["model"]["dropout"]) == (96, 0.5)
    assert "mesh" in frozen and "sources" not in frozen and dict(frozen.mesh)["data"] == -1
    validate(frozen)
    assert flatten(frozen) == flatten(config) == flatten(thaw(frozen))
    assert hash_of(frozen) == hash_of(config) and to_json(frozen) == to_json(config)
    assert from_json(to_json(frozen)) == frozen == freeze(thaw(frozen)) and hash(frozen) == hash(freeze(frozen))
    assert freeze(
        {**config, "optimizer": {**config.optimizer, "rules": [["head", "freeze", True]]}}
    ).optimizer.rules == (("head", "freeze", True),)
    with pytest.raises(dataclasses.FrozenInstanceError):
        frozen.model.width = 3


def test_every_default_has_its_fields_type_and_is_allowed():
    """Flags can only set fields of these types."""
    validate(default())
    assert freeze(default()) == Settings()
    assert list(allowed_values()) == list(flatten(Settings()))

    def of(kind, prefix=""):
        for name, hint in typing.get_type_hints(kind).items():
            if dataclasses.is_dataclass(hint):
                yield from of(hint, f"{prefix}{name}.")
            else:
                yield (
                    prefix + name,
                    type(typing.get_args(hint)[0]) if typing.get_origin(hint) is typing.Literal else hint,
                )

    for field, kind in of(Settings):
        value = flatten(Settings())[field]
        assert type(value) is (typing.get_origin(kind) or kind) and type(value) in (int, float, str, bool, tuple), field


def test_allowed_values_are_declared_only_beside_the_field(monkeypatch):
    """A field that is added to a section gets a default, a flag, a check and help."""

    @dataclasses.dataclass(frozen=True)
    class Wider(ModelSettings):
        streams: typing.Annotated[settings.Count, settings.at_most(4)] = 2  # how many residual streams there are
        norm: typing.Literal["rmsnorm", "none"] = "none"

    monkeypatch.setitem(Settings.__annotations__, "model", Wider)
    monkeypatch.setattr(Settings.__init__, "__defaults__", (0, Wider(), *Settings.__init__.__defaults__[2:]))
    allowed_values.cache_clear()
    try:
        config = default()
        assert (config.model.streams, allowed("model.streams")) == (2, "at least 1, at most 4")
        for field, value, message in (
            ("streams", 5, r"model\.streams = 5: must be at most 4"),
            ("norm", "layernorm", r"model\.norm = 'layernorm': expected one of rmsnorm, none"),
        ):
            changed = default()
            changed.model[field] = value
            with pytest.raises(ConfigError, match=message):
                validate(changed)
    finally:
        monkeypatch.undo()
        allowed_values.cache_clear()


def test_the_config_has_exactly_the_declared_fields():
    names = {field: set(allowed.names) for field, allowed in allowed_values().items() if allowed.names}
    assert names["data.windows"] == set(TEXT_WINDOWS)
    assert names["model.feedforward"] == set(ACTIVATIONS)
    assert names["model.position"] == {"rope", "learned", "sinusoidal", "none", *position_bias.SCHEMES}
    assert names["optimizer.name"] == set(treatments.METHODS)
    assert names["schedule.name"] == set(schedule.NAMES)
