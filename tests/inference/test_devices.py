"""Several devices generate the same text as one device."""

import os
import re
import subprocess
import sys

import jax
import numpy as np
import pytest
from random_models import TOKENIZER, make_model

from gptjax.config import ConfigError
from gptjax.inference import decode as device
from gptjax.inference.devices import decoding_mesh
from gptjax.inference.generate import Generator
from gptjax.inference.timing import Timing
from gptjax.model.families import family_of
from gptjax.parallel.sharding import params_sharding

PROMPTS = ["def f(x):", "a", "héllo wörld, this is longer"]
LAYERS = 2
VARIANTS = {
    "grouped queries and windows": dict(num_kv_heads=2, qk_norm=True, window=5, window_pattern="SL"),
    "encoder and decoder": dict(family="encoder_decoder", num_layers=1, position="learned", bias="all"),
}


def both(weights=None, **changes):
    """Generators of one model: on one device, and on two."""
    params, config = make_model(**({"num_layers": LAYERS} | changes))
    mesh = decoding_mesh("tensor=2")
    placed = jax.device_put(params, params_sharding(mesh, family_of(config.model).declarations))
    return (
        Generator(params, config, TOKENIZER, weights=weights),
        Generator(placed, config, TOKENIZER, weights=weights, mesh=mesh),
    )


def assert_equal(one, other):
    assert [text.tokens for text in one] == [text.tokens for text in other]
    for a, b in zip(one, other):
        np.testing.assert_allclose(a.logprobs, b.logprobs, atol=1e-3)


@pytest.mark.parametrize("variant", VARIANTS)
def test_the_text_is_the_same(variant):
    one, two = both(**VARIANTS[variant])
    options = dict(max_new_tokens=12, temperature=0.8, top_k=20)
    assert_equal(one.generate(PROMPTS, **options), two.generate(PROMPTS, **options))


def test_streams_beams_and_int8_are_the_same():
    one, two = both(weights="int8", num_layers=1)
    streams = [generator.stream("abc", max_new_tokens=8, chunk=5) for generator in (one, two)]
    assert list(streams[0]) == list(streams[1])
    assert_equal(*(each.search(["abc"], num_beams=2, max_new_tokens=8) for each in (one, two)))


def test_a_token_costs_one_sum_over_devices_per_sub_layer():
    _, two = both()
    inputs, compiled_in = two._programs.inputs([two._row("abc", 0, 8, (), True)], {}, Timing())
    with jax.set_mesh(two.mesh):
        state = device.prefill(two.family, two.params, **inputs, room=8, **compiled_in)
        lowered = device.decode.lower(two.family, two.params, state, np.int32(1), np.zeros(1, bool))
        text = lowered.compile().as_text()
    assert len(re.findall(r" all-reduce\(", text)) == 2 * LAYERS + 1  # and the sum of the logits
    assert len(re.findall(r" all-gather\(", text)) <= 1  # for the token's row of the embedding


COUNTED = """
import jax
from gptjax.inference import devices
devices.available_cores = lambda: [0, 1, 2]
devices.MOST_CORES = {most}
devices.divide_cpu()
print(jax.device_count())
devices.divide_cpu()  # too late, and harmless
print(jax.device_count())
"""


@pytest.mark.parametrize(
    "most, chosen, count",
    [
        (8, {}, 3),
        (2, {}, 2),
        (8, {"XLA_FLAGS": "--xla_force_host_platform_device_count=4"}, 4),
        (8, {"JAX_NUM_CPU_DEVICES": "1"}, 1),
    ],
)
def test_the_cores_of_a_cpu_become_devices_unless_the_user_chose_a_number(most, chosen, count):
    environment = os.environ | {"XLA_FLAGS": "", "JAX_PLATFORMS": "cpu"} | chosen
    command = [sys.executable, "-c", COUNTED.format(most=most)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120, check=True)
    assert done.stdout.split() == [str(count)] * 2


@pytest.mark.parametrize(
    "text, message",
    [
        ("data=2", "--mesh=data=2: expected tensor=N"),
        ("tensor=0", "--mesh=tensor=0: expected tensor=N"),
        ("tensor=99", "--mesh=tensor=99: this process has 8 devices"),
    ],
)
def test_other_meshes_are_refused(text, message):
    with pytest.raises(ConfigError, match=message):
        decoding_mesh(text)
