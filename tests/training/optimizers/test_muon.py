"""Newton–Schulz against the singular value decomposition for each matrix of a stack, and whole matrices on a mesh."""

import functools
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding

from gptjax.forecast.program import parse_program
from gptjax.model.parameters import Parameter
from gptjax.parallel.compilation import training_options
from gptjax.parallel.mesh import AXES, make_mesh
from gptjax.parallel.sharding import spec_of
from gptjax.training.optimizers import muon
from gptjax.training.optimizers.muon import scale_by_orthogonalization

orthogonalize = jax.jit(muon.orthogonalize)
of_layers = functools.partial(Parameter, "matrix", init=jax.nn.initializers.zeros, stack={"layers": 2})
QUERY = of_layers({"embed": 8}, {"heads": 3, "head": 4})
OUTPUT = of_layers({"heads": 3, "head": 4}, {"embed": 8})


def gaussian(seed, *shape):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def first_update(parameters, gradients):
    transform = scale_by_orthogonalization(parameters, jnp.float32)
    return jax.jit(lambda gradients: transform.update(gradients, transform.init(gradients))[0])(gradients)


def core(matrix, orthogonalized):
    """Uᵀ O V for matrix = U S Vᵀ, which is diagonal with entries near one if O has the same singular vectors."""
    u, _, vt = np.linalg.svd(np.asarray(matrix, np.float64), full_matrices=False)
    return u.T @ np.asarray(orthogonalized, np.float64) @ vt.T


@pytest.mark.parametrize("shape", [(3, 12, 20), (3, 20, 12), (2, 16, 16)])
def test_singular_vectors_are_kept_and_singular_values_become_about_one(shape):
    stack = gaussian(0, *shape) * np.float32([1e-4, 1.0, 1e4][: shape[0]])[:, None, None]
    for matrix, result in zip(stack, orthogonalize(stack)):
        middle = core(matrix, result)
        np.testing.assert_allclose(middle - np.diag(np.diag(middle)), 0, atol=1e-3)
        assert np.diag(middle).min() > 0.3 and np.diag(middle).max() < 1.3
        assert abs(np.median(np.diag(middle)) - 1) < 0.25


def test_bfloat16_agrees_with_float32():
    stack = gaussian(1, 2, 32, 48)
    narrow = orthogonalize(stack.astype(jnp.bfloat16))
    assert narrow.dtype == jnp.bfloat16
    difference = np.asarray(narrow, np.float32) - np.asarray(orthogonalize(stack))
    assert np.linalg.norm(difference) / np.linalg.norm(orthogonalize(stack)) < 0.1


def test_attention_is_orthogonalized_as_one_matrix_per_layer():
    query_LDNH, output_LNHD = gaussian(2, 2, 8, 3, 4), gaussian(3, 2, 3, 4, 8)
    gradients = {"layers": {"query": query_LDNH, "output": output_LNHD}}
    result = first_update({"layers/query": QUERY, "layers/output": OUTPUT}, gradients)["layers"]
    assert result["query"].shape == query_LDNH.shape and result["output"].shape == output_LNHD.shape
    for layer in range(2):
        # [8, 12] and [12, 8]; the first is scaled by sqrt(12 / 8), the second is not
        middle = core(query_LDNH[layer].reshape(8, 12), result["query"][layer].reshape(8, 12)) / np.sqrt(12 / 8)
        np.testing.assert_allclose(middle - np.diag(np.diag(middle)), 0, atol=1e-3)
        middle = core(output_LNHD[layer].reshape(12, 8), result["output"][layer].reshape(12, 8))
        np.testing.assert_allclose(middle - np.diag(np.diag(middle)), 0, atol=1e-3)


@pytest.mark.parametrize("fan_in, fan_out", [(16, 64), (64, 16), (32, 32)])
def test_the_update_rms_is_one_over_the_root_of_fan_in_for_every_shape(fan_in, fan_out):
    up = of_layers({"embed": fan_in}, {"mlp": fan_out}, stack={"layers": 3})
    update = first_update({"up": up}, {"up": np.float32(1e-9) * gaussian(4, 3, fan_in, fan_out)})["up"]
    rms = np.sqrt(np.mean(np.square(update), axis=(1, 2)))
    np.testing.assert_allclose(rms * np.sqrt(fan_in), 1.0, rtol=0.2)


def test_tiny_and_zero_matrices():
    up = of_layers({"embed": 6}, {"mlp": 8}, stack={"layers": 3})
    gradient = gaussian(5, 1, 6, 8)
    stack = np.concatenate([gradient, np.float32(1e-30) * gradient, np.zeros_like(gradient)])
    whole, tiny, zero = np.asarray(first_update({"up": up}, {"up": stack})["up"])
    np.testing.assert_allclose(tiny, whole, rtol=1e-4, atol=1e-5)
    assert not zero.any()


@functools.cache
def compile_on_mesh(shape, num_layers):
    """The update of query projections, jitted and compiled where the sharding table puts it."""
    query_LDNH = gaussian(6, num_layers, 8, 4, 4)
    mesh = make_mesh(dict.fromkeys(AXES, 1) | dict(zip(("data", "fsdp", "tensor"), shape)))
    query = of_layers({"embed": 8}, {"heads": 4, "head": 4}, stack={"layers": num_layers})
    transform = scale_by_orthogonalization({"query": query}, jnp.float32)

    def update(query_LDNH):
        return transform.update({"query": query_LDNH}, transform.init({}))[0]["query"]

    alone = jax.jit(update)(query_LDNH)
    sharding = NamedSharding(mesh, spec_of(query, mesh))
    with jax.set_mesh(mesh):
        sharded = jax.device_put(query_LDNH, sharding)
        compiled = jax.jit(update, out_shardings=sharding).lower(sharded).compile()
        np.testing.assert_allclose(compiled(sharded), alone, rtol=1e-4, atol=1e-5)
    return compiled.as_text()


@pytest.mark.parametrize("num_layers", [8, 6])  # six matrices on eight devices are padded
@pytest.mark.parametrize("mesh_shape", [(1, 8, 1), (8, 1, 1), (1, 4, 2), (2, 2, 2)])
def test_on_a_mesh_values_are_equal_and_each_device_multiplies_its_own_whole_matrices(mesh_shape, num_layers):
    program = compile_on_mesh(mesh_shape, num_layers)
    # One matrix per device: Gram matrices are [1, 8, 8] (the compiler may drop the one), never a stack of six or eight.
    products = set(re.findall(r"f32\[([\d,]+)\]\S* dot\(", program))
    assert products and all(shape.split(",")[0] == "1" or shape.count(",") == 1 for shape in products), products


@pytest.mark.parametrize("mesh_shape, gathers", [((1, 8, 1), 0), ((1, 4, 2), 0), ((2, 4, 1), 1), ((2, 2, 2), 1)])
def test_matrices_move_by_all_to_all_and_only_data_replicas_are_gathered(mesh_shape, gathers):
    program = compile_on_mesh(mesh_shape, 8)
    assert len(re.findall(r" all-gather(?:-start)?\(", program)) == gathers
    assert len(re.findall(r" all-to-all(?:-start)?\(", program)) >= 2


@pytest.mark.parametrize("mesh_shape", [(1, 8, 1), (2, 4, 1), (1, 4, 2), (2, 2, 2)])
def test_squares_are_summed_within_a_device(mesh_shape):
    """No sum over devices is needed: counting a part twice would make all updates too small."""
    program = compile_on_mesh(mesh_shape, 8)
    reduced = re.findall(r" all-reduce(?:-start)?\(.*to_apply=%?([\w.\-]+)", program)
    assert reduced  # the largest entries
    for region in set(reduced):
        body = re.search(rf"^%?{re.escape(region)} .*?^}}", program, re.M | re.S).group()
        assert " maximum(" in body and " add(" not in body, body


def test_on_processors_each_product_is_a_kernel_of_its_own():
    """YNNPACK would merge the products of square matrices, and compute some of them many times."""
    options = training_options(jax.make_mesh((1,), ("data",), devices=jax.devices()[:1]), "float32")
    compiled = orthogonalize.lower(jax.ShapeDtypeStruct((2, 64, 64), jnp.float32)).compile(options)
    operations = parse_program(compiled.as_text()).computations.values()
    products = [sum(each.kind == "dot" for each in inside) for inside in operations]
    assert sum(products) == 3 * muon.ROUNDS and max(products) == 1
