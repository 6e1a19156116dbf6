"""The facts that processes compare, and the message that names a difference."""

import pytest

from gptjax.config import default
from gptjax.parallel.agreement import difference, named, settings


def test_settings_include_config_and_code_but_not_what_may_differ():
    config = default()
    facts = settings(config)
    for name in (
        "gptjax",
        "jax",
        "jax_default_matmul_precision",
        "jax_threefry_partitionable",
        "config.seed",
        "config.optimizer.learning_rate",
        "config.training.init_from",
    ):
        assert name in facts
    assert any(name.startswith("the file gptjax/model/decoder.py") for name in facts)
    config.data.update(path="/elsewhere", workers=7)
    assert settings(config) == facts
    config.optimizer.learning_rate *= 2
    assert difference({0: facts, 1: settings(config)}).startswith(
        "config.optimizer.learning_rate = 0.001 in process 0, 0."
    )


def test_nested_values_have_dotted_names():
    tree = {"seed": 1, "sources": [{"tokens": 5, "files": ["a", "b"]}], "none": []}
    assert named("data", tree) == {
        "data.seed": 1,
        "data.sources.0.tokens": 5,
        "data.sources.0.files": ["a", "b"],
        "data.none": [],
    }


@pytest.mark.parametrize(
    "facts, sentence",
    [
        ({0: {"a": 1}, 1: {"a": 1}}, ""),
        ({0: {"a": "x"}, 1: {"a": "x"}, 2: {"a": "y"}}, 'a = "x" in process 0, "y" in process 2: must be'),
        ({0: {"a": 1}, 1: {}}, "a = 1 in process 0, nothing in process 1: must be"),
        ({0: {}, 1: {"a": 1}}, "a = nothing in process 0, 1 in process 1: must be"),
        ({0: dict.fromkeys("zyxwv", 0), 1: dict.fromkeys("zyxwv", 1)}, "z = 0 in process 0, 1 in process 1; y = 0 "),
        ({0: dict.fromkeys("zyxwv", 0), 1: dict.fromkeys("zyxwv", 1)}, "; and 1 more: must be"),
        ({0: {"a": "x" * 200}, 1: {"a": ""}}, 'xxx... in process 0, "" in process 1: must be'),
    ],
)
def test_a_difference_is_reported_in_the_order_of_process_0(facts, sentence):
    found = difference(facts)
    assert sentence in found if sentence else found == ""
