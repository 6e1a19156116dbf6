"""Moments in bfloat16 and int8: their errors are bounded, their means are preserved, and nothing else changes."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from gptjax.config import ConfigError
from gptjax.model.parameters import Parameter
from gptjax.model.tree import leaves_by_path
from gptjax.parallel.mesh import AXES, AbstractDevices, abstract_mesh, make_mesh
from gptjax.parallel.sharding import TILE, params_sharding, state_sharding
from gptjax.settings import MeshSettings, OptimizerSettings
from gptjax.training.optimizers.moments import FORMATS, stored
from gptjax.training.optimizers.optimizer import make_optimizer

# 30 rows and 20 columns of a head are not whole tiles.
QUERY = Parameter("matrix", {"embed": 30}, {"heads": 2, "head": 20}, None, {"layers": 2})
UP = Parameter("matrix", {"embed": 64}, {"mlp": 96}, None, {"layers": 2})
SCALE = Parameter("vector", {}, {"embed": 64}, None, {"layers": 2})
DECLARED = {"layers": {"up": UP, "scale": SCALE}}
FEW_BITS = ["bfloat16", "int8"]


def normal(seed, shape):
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def round_trips(x, parameter, signed, name, counts):
    """The values read after x was written by the first, second, … update."""
    write, read = FORMATS[name]

    @jax.jit
    def one(count):
        return read(write(jnp.asarray(x), parameter, signed, count), parameter, signed)

    return np.stack([one(jnp.int32(count)) for count in counts])


@pytest.mark.parametrize("signed", [True, False])
@pytest.mark.parametrize("name, steps_per_octave", [("bfloat16", 128), ("int8", None)])
def test_a_number_is_rounded_to_one_of_its_two_neighbours_and_its_mean_is_preserved(name, steps_per_octave, signed):
    x = normal(0, QUERY.shape)
    x = x if signed else np.square(x)
    ratio = 2.0 ** (1 / (8 if signed else 12)) if name == "int8" else 1 + 1 / steps_per_octave
    seen = round_trips(x, QUERY, signed, name, range(300))
    in_range = np.abs(x) > 1e-4 * np.abs(x).max()
    assert (np.abs(seen / x) < ratio * 1.0001)[:, in_range].all() and (np.abs(seen / x) > 0.9999 / ratio)[
        :, in_range
    ].all()
    assert all(len(np.unique(seen[:, i, j, 0, k])) <= 2 for i in range(2) for j in range(5) for k in range(5))
    off = (seen.mean(0) / x - 1)[in_range]
    assert abs(off.mean()) < (ratio - 1) / 100 and np.abs(off).max() < (ratio - 1) / 4


def test_int8_preserves_the_largest_number_of_each_tile_and_zeros_but_no_second_moment_becomes_zero():
    square = np.square(normal(1, UP.shape)) * np.float32(1e-3)
    square[0, :TILE, :TILE] = 0
    square[0, TILE, 0] = 1e-30
    (seen,) = round_trips(square, UP, False, "int8", [3])
    of_seen, of_square = (x.reshape(2, 64 // TILE, TILE, 96 // TILE, TILE).max((2, 4)) for x in (seen, square))
    np.testing.assert_allclose(of_seen, of_square, rtol=1e-6)
    assert not seen[0, :TILE, :TILE].any()
    assert ((seen > 0) == (square > 0)).all()
    (signed,) = round_trips(square, UP, True, "int8", [3])
    assert signed[0, TILE, 0] == 0  # a first moment may become zero


@pytest.mark.parametrize("name", FEW_BITS)
def test_non_finite_numbers_stay_non_finite(name):
    for number in (np.nan, np.inf):
        x = normal(2, UP.shape)
        x[1, 2, 3] = number
        assert not np.isfinite(round_trips(x, UP, True, name, [0])[0, 1, 2, 3])


@pytest.mark.parametrize("name", FEW_BITS)
def test_a_second_moment_that_decays_slowly_decays(name):
    """If rounded to the nearest number, its root would stay 4 times too large in bfloat16 and 1.24 times in int8."""
    write, read = FORMATS[name]
    square = Parameter("matrix", {"embed": TILE}, {"mlp": TILE}, None)

    def step(carry, count):
        exact, kept = carry
        gradient = jax.random.normal(jax.random.fold_in(jax.random.key(0), count), square.shape)
        gradient *= jnp.where(count < 500, 1.0, 0.1)
        exact, mine = (0.999 * v + 0.001 * gradient**2 for v in (exact, read(kept, square, False)))
        return (exact, write(mine, square, False, count)), None

    zeros = jnp.zeros(square.shape)
    start = zeros, write(zeros, square, False, jnp.int32(0))
    exact, kept = jax.jit(lambda: jax.lax.scan(step, start, jnp.arange(4000)))()[0]
    assert np.mean(np.sqrt(read(kept, square, False) / exact)) == pytest.approx(1.0, abs=0.05)


@pytest.mark.parametrize("name", FEW_BITS)
@pytest.mark.parametrize("method", ["adamw", "muon", "lion", "sgd", "adafactor"])
def test_updates_are_close_to_those_of_float32(method, name):
    def direction(fields):
        config = OptimizerSettings(name=method, learning_rate=1.0, muon_learning_rate=1.0, weight_decay=0.0, **fields)
        optimizer = make_optimizer(config, lambda peak: lambda step: jnp.float32(peak), DECLARED)
        update, state = jax.jit(optimizer.update), optimizer.init(params)
        for seed in range(4):
            gradients = jax.tree.map(lambda p, seed=seed: normal(seed, p.shape) + normal(9, p.shape), DECLARED)
            made, state = update(gradients, state, params)
        return made["layers"]["up"], state

    params = jax.tree.map(lambda p: normal(0, p.shape), DECLARED)
    fields = {"first_moment_dtype": name} | ({"second_moment_dtype": name} if method in ("adamw", "muon") else {})
    (exact, exact_state), (mine, state) = direction({}), direction(fields)
    relative = np.linalg.norm(mine - exact) / np.linalg.norm(exact)
    assert 0 < relative < {"bfloat16": 0.01, "int8": 0.1}[name] * {"lion": 4, "muon": 2}.get(method, 1)
    assert bytes_of_up(state) < bytes_of_up(exact_state) * {"bfloat16": 0.55, "int8": 0.3}[name]


def bytes_of_up(state):
    return sum(leaf.nbytes for path, leaf in leaves_by_path(state).items() if "layers/up" in path and leaf.ndim == 3)


def test_float32_changes_neither_the_state_nor_its_names():
    inner = optax.scale_by_adam()
    assert stored(inner, {}, mu="float32", nu="float32") is inner


@pytest.mark.parametrize("name", ["lion", "adafactor", "sgd"])
def test_a_format_for_a_second_moment_that_the_optimizer_lacks_is_refused(name):
    with pytest.raises(ConfigError, match="second_moment_dtype = 'int8': must be float32"):
        make_optimizer(OptimizerSettings(name=name, second_moment_dtype="int8"), None, DECLARED)


def int8_adamw():
    config = OptimizerSettings(first_moment_dtype="int8", second_moment_dtype="int8")
    return make_optimizer(config, lambda peak: lambda step: jnp.float32(peak), DECLARED)


def test_codes_and_scales_are_split_like_their_parameter_with_equal_values():
    mesh, optimizer = make_mesh(dict.fromkeys(AXES, 1) | dict(data=2, fsdp=2, tensor=2)), int8_adamw()
    params, gradients = (jax.tree.map(lambda p, seed=seed: normal(seed, p.shape), DECLARED) for seed in (0, 1))
    update = jax.jit(lambda g, p: optimizer.update(g, optimizer.init(p), p))
    alone, state_alone = update(gradients, params)
    shardings = state_sharding(mesh, jax.eval_shape(optimizer.init, params), DECLARED)
    with jax.set_mesh(mesh):
        on_mesh, state = jax.jit(update, out_shardings=(None, shardings))(
            gradients, jax.device_put(params, params_sharding(mesh, DECLARED))
        )
    for path, leaf in leaves_by_path(state).items():
        if "up/" in path:
            assert leaf.sharding.shard_shape(leaf.shape) == (2, leaf.shape[1] // 2, leaf.shape[2] // 2), path
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6), alone, on_mesh)
    for mine, other in zip(jax.tree.leaves(state_alone), jax.tree.leaves(state)):
        # A sum in another order may be rounded differently.
        assert np.mean(np.asarray(mine) != np.asarray(other)) < 0.01


def test_parts_that_are_not_whole_tiles_are_refused():
    mesh = abstract_mesh(MeshSettings(data=1, fsdp=8), AbstractDevices("cpu", 8))
    params = jax.tree.map(lambda p: jnp.zeros(p.shape), DECLARED)
    with pytest.raises(ConfigError, match=r"mesh\.fsdp = 8 must divide an axis of 64 numbers into multiples of 16"):
        state_sharding(mesh, jax.eval_shape(int8_adamw().init, params), DECLARED)
