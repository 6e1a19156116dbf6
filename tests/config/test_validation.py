"""Durations, validation messages, and saving and loading a config."""

import jax
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gptjax import planning
from gptjax.config import ConfigError, Units, default, flatten, from_json, get, hash_of, to_json, validate
from gptjax.corpus import config as corpus_config
from gptjax.data.facts import DataFacts
from gptjax.forecast.fits import check_fits

UNITS = Units(tokens_per_step=1000, steps_per_epoch=50.5, total_steps=2000)


@pytest.mark.parametrize(
    "text, steps",
    [
        ("500 steps", 500),
        ("500", 500),
        (500, 500),
        ("1 step", 1),
        ("2k steps", 2000),
        ("300M tokens", 300_000),
        ("1.5B tokens", 1_500_000),
        ("999 tokens", 1),
        ("1001 tokens", 2),
        ("2 epochs", 101),
        ("1 epoch", 51),
        ("5%", 100),
        ("0.1%", 2),
        ("1e3 steps", 1000),
        ("0 steps", 0),
    ],
)
def test_durations_in_every_unit(text, steps):
    assert UNITS.steps(text, "training.duration") == steps


@pytest.mark.parametrize("text", ["", "soon", "5 minutes", "-3 steps", "3 steps 4", "% 5"])
def test_an_invalid_duration_is_refused_with_its_field(text):
    with pytest.raises(ConfigError, match=r"training\.duration"):
        UNITS.steps(text, "training.duration")


def test_units_without_meaning_are_refused():
    bare = Units(tokens_per_step=1000)
    with pytest.raises(ConfigError, match="epochs require data"):
        bare.steps("1 epoch", "training.duration")
    with pytest.raises(ConfigError, match="cannot be a percentage"):
        bare.steps("5%", "training.duration")


@given(st.integers(1, 10**9))
def test_durations_are_exact_for_any_number_of_steps(n):
    assert UNITS.steps(f"{n} steps", "f") == n
    assert UNITS.steps(f"{n * 1000} tokens", "f") == n


def changed(**fields):
    """The default config with `section__field=value` set, whatever the type."""
    config = default().unlock()
    for field, value in fields.items():
        section, name = field.split("__")
        with config[section].ignore_type():
            config[section][name] = value
    return config


def test_the_default_is_valid():
    validate(default())


@pytest.mark.parametrize(
    "fields, message",
    [
        (dict(model__wdith=3), r"unknown field model\.wdith; did you mean model\.width\?"),
        (dict(evaluation__batches=20), r"evaluation\.batches was replaced by evaluation\.tokens"),
        (dict(model__width="wide"), r"model\.width = 'wide': expected int, got str"),
        (dict(model__num_heads=True), r"model\.num_heads = True: expected int, got bool"),
        (dict(model__norm="batchnorm"), r"model\.norm = 'batchnorm': expected one of rmsnorm, layernorm"),
        (dict(model__feedforward="swigl"), r"did you mean swiglu\?"),
        (dict(model__dtype="float16"), r"float16.*use 'bfloat16' on GPU"),
        (dict(model__rope_fraction=1.5), r"model\.rope_fraction = 1\.5: must be at most 1"),
        (dict(model__dropout=1.0), r"model\.dropout = 1\.0: must be in \[0, 1\)"),
        (dict(model__num_layers=0), r"model\.num_layers = 0: must be at least 1"),
        (dict(optimizer__learning_rate=0.0), r"optimizer\.learning_rate = 0\.0: must be positive"),
        (dict(optimizer__weight_decay=-1.0), r"optimizer\.weight_decay = -1\.0: must not be negative"),
        (
            dict(optimizer__rules=(("head", "speed", 2),)),
            r"optimizer\.rules has \('head', 'speed', 2\): 'speed' is not",
        ),
        (dict(optimizer__rules=((1, "freeze", True),)), r"optimizer\.rules has \(1, 'freeze', True\): a rule is"),
        (dict(optimizer__rules=((1,),)), r"optimizer\.rules has \(1,\): a rule is"),
        (dict(optimizer__rules=((".*", "learning_rate", float("inf")),)), r"a factor: a finite number"),
        (dict(model__width=2**31), r"model\.width = 2147483648: must be below 2\^31"),
        (dict(model__vocab_size=10**11), r"model\.vocab_size = 100000000000: must be below 2\^31"),
        (dict(model__num_layers=2**63), r"model\.num_layers = 9223372036854775808: must be below 2\^63"),
        (
            dict(training__duration="1e18 tokens"),
            r"training\.duration = '1e18 tokens': .* must be at most 2,147,483,647",
        ),
        (dict(optimizer__learning_rate=1e-60), r"optimizer\.learning_rate = 1e-60: must be positive"),
        (dict(optimizer__beta2=1 - 1e-12), r"optimizer\.beta2 = 0\.9\d+: must be in \[0, 1\)"),
        (dict(optimizer__learning_rate=1e39), r"optimizer\.learning_rate = 1e\+39: must be finite in float32"),
        (dict(data__path="a\0b"), r"data\.path = 'a\\x00b': must not contain the character NUL"),
        (dict(data__path="a\udcff"), r"data\.path = 'a\\udcff': must be valid UTF-8 text"),
        (dict(schedule__final_fraction=1.5), r"must be in \[0, 1\]"),
        (dict(schedule__warmup="a while"), r"schedule\.warmup = 'a while'"),
        (dict(training__batch_size=9, training__gradient_accumulation_steps=2), r"batch_size = 9: must be divisible"),
        (
            dict(model__num_experts=4, training__load_balance_over="batch", training__gradient_accumulation_steps=2),
            r"load_balance_over = 'batch': must be 'sequence' if training.gradient_accumulation_steps = 2",
        ),
        (dict(training__duration="0 steps"), r"training\.duration = '0 steps': must be at least one step"),
        (dict(evaluation__every="0 steps"), r"evaluation\.every"),
        (dict(training__duration="1e400 steps"), r"training\.duration = '1e400 steps': the number is too large"),
        (dict(optimizer__learning_rate=float("inf")), r"optimizer\.learning_rate = inf: must be finite"),
    ],
)
def test_invalid_values_are_refused_with_field_and_value(fields, message):
    with pytest.raises(ConfigError, match=message):
        validate(changed(**fields))


# Values of every kind that a user could give to a field, by mistake or on purpose.
HOSTILE = (
    *(0, -1, 1, 3, 7, 2**31 - 1, 2**31, 2**32, 2**63 - 1, 2**63, 10**30),
    *(0.0, -0.0, 1e-300, 0.5, 1.0, 1.5, 1e38, 1e300, float("nan"), float("inf"), float("-inf")),
    *("", "0", "-1 steps", "1e18 tokens", "100%", "1e400 epochs", "\0", "\ud800", "a" * 10_000, "no_such_module:make"),
    *(
        (),
        (1,),
        ((1,),),
        ((), ()),
        ((".*", "learning_rate", 1e38),),
        (("(", "freeze", True),),
        (((1,), "freeze", [])),
    ),
    *(True, False, None, [], {}, b"", 1j, object()),
)


@pytest.mark.parametrize("values", [HOSTILE[::3], pytest.param(HOSTILE, marks=pytest.mark.exhaustive)], ids=len)
@pytest.mark.parametrize("field", list(flatten(default())))
def test_no_value_of_any_field_ends_in_a_traceback(field, values, tiny_run):
    """Each hostile value is refused with a message, or the run that it describes can be planned without allocation."""
    base = tiny_run
    refused = 0
    for value in values:
        config = base.copy_and_resolve_references()
        *sections, name = field.split(".")
        section = config[sections[0]] if sections else config
        try:
            with section.ignore_type(), section.unlocked():
                section[name] = value
            validate(config)
            to_json(config).encode()
            if field.startswith(("model.", "optimizer.", "schedule.", "training.", "data.sequence_length")):
                arrange(config)
        except ConfigError as error:
            refused += 1
            named = field in str(error) or str(error).startswith(("optimizer.rules", "the training state takes"))
            assert named and "\n" not in str(error), error
    assert refused


@pytest.fixture(scope="module")
def tiny_run():
    config = default()
    config.model.update(num_layers=1, width=16, num_heads=2, vocab_size=32)
    config.data.sequence_length = 8
    config.training.batch_size = 8
    return config


def arrange(config):
    plan = planning.plan(config, DataFacts(vocab_size=32, windows_per_epoch=80), jax.devices())
    check_fits(plan, limit=2**33)


def test_a_seed_that_jax_would_truncate_is_refused():
    config = default()
    config.seed = 2**32
    with pytest.raises(ConfigError, match=r"seed = 4294967296: must be below"):
        validate(config)


def test_a_missing_field_is_refused():
    config = default().unlock()
    del config.model.width
    with pytest.raises(ConfigError, match=r"field model\.width is missing"):
        validate(config)


def test_a_saved_config_is_the_same_config():
    config = changed(model__width=64, optimizer__rules=(("head", "learning_rate", 0.3),))
    restored = from_json(to_json(config))
    assert flatten(restored) == flatten(config)
    assert hash_of(restored) == hash_of(config)
    assert get(restored, "optimizer.rules") == (("head", "learning_rate", 0.3),)
    hash(restored.model)  # Linen modules can have it as an attribute


def test_the_hash_depends_only_on_fields_that_affect_results():
    base, blind = hash_of(default()), set()
    for field, value in flatten(default()).items():
        change = {bool: lambda v: not v, str: lambda v: v + "x", tuple: lambda v: (*v, 1)}
        config = default()
        *sections, name = field.split(".")
        (config[sections[0]] if sections else config)[name] = change.get(type(value), lambda v: v + 1)(value)
        if hash_of(config) == base:
            blind.add(field)
    parts = {field.partition(".")[0] for field in blind}
    assert parts == {"logging", "checkpoint", "mesh", "evaluation", "data", "model", "optimizer", "training"}
    assert {field for field in blind if field.startswith("optimizer.")} == {"optimizer.memory"}
    assert {field.partition(".")[2] for field in blind if field.startswith("model.")} == {
        *("layers", "remat", "attention", "attention_block")
    }
    assert not blind & {"data.path", "data.windows", "training.batch_size", "training.init_from", "model.dtype"}


def test_the_hash_changes_with_the_weights_of_data_but_not_with_their_folder():
    here, moved, other = (
        changed(data__path=path) for path in ("d/web=0.7,d/code", "/x/web=0.7,/y/code/", "d/web,d/code")
    )
    assert hash_of(here) == hash_of(moved) != hash_of(other)


def test_unreadable_configs_are_refused():
    with pytest.raises(ConfigError, match=r"config\.json is cut off in line 1"):
        from_json('{"model": ')
    with pytest.raises(ConfigError, match=r"unknown field model\.speed"):
        from_json('{"model": {"speed": 3}}')
    with pytest.raises(ConfigError, match=r"evaluation\.batches was replaced by evaluation\.tokens"):
        from_json('{"evaluation": {"batches": 20}}')
    with pytest.raises(ConfigError, match="must hold a JSON object"):
        from_json("[]")
    with pytest.raises(ConfigError, match=r"model\.width = 'wide': expected int"):
        from_json('{"model": {"width": "wide"}}')
    with pytest.raises(ConfigError, match="unknown field model"):
        from_json('{"model": 3}')


def test_a_config_of_the_other_kind_is_recognised():
    with pytest.raises(ConfigError, match="describes a corpus: give it to gptjax prepare"):
        validate(corpus_config.default())
    with pytest.raises(ConfigError, match="describes a training run: give it to gptjax train"):
        corpus_config.validate(default())
