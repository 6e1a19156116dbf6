"""experiments/from_scratch/sizes.py counts what the book and the models' own reports publish."""

from pathlib import Path

import pytest
import sizes

from gptjax.config.user_code import load_config
from gptjax.model.resolve import resolve_model

ROOT = Path(__file__).parents[3]


def resolved(config: str, context: int = 1024, **changes):
    model = load_config(str(ROOT / "configs" / config)).model
    model.update(changes)
    return resolve_model(model, platform="gpu", vocab_size=0, sequence_length=context)


@pytest.mark.parametrize(
    ("config", "changes", "parameters"),
    [
        ("llama.py:8b", dict(vocab_size=32_000, num_kv_heads=32, feedforward_width=11_008), 6_738_415_616),  # Llama 2
        ("llama.py:1b", {}, 1_235_814_400),
        ("qwen3.py:0.6b", {}, 596_049_920),
        ("gemma.py:3-270m", {}, 268_098_176),
        ("moe.py:qwen3_30b_a3b", {}, 30_532_122_624),
    ],
)
def test_parameters_are_as_many_as_in_the_book(config, changes, parameters):
    assert sizes.sizes(resolved(config, **changes), 1024)["parameters"] == parameters


@pytest.mark.parametrize(
    ("changes", "gigabytes"),
    [
        (dict(num_kv_heads=32), (17.18, 17.18)),
        (dict(num_kv_heads=8), (4.29, 4.29)),
        (dict(num_kv_heads=32, window=1024, window_pattern="SSSSSL"), (17.18, 3.14)),
        (dict(num_kv_heads=8, window=1024, window_pattern="SSSSSL"), (4.29, 0.78)),
    ],
)
def test_the_cache_is_as_large_as_in_the_book(changes, gigabytes):
    model = resolved("llama.py:8b", 32_768, **changes)
    assert tuple(round(size / 1e9, 2) for size in sizes.cache_bytes(model, 32_768)) == gigabytes
