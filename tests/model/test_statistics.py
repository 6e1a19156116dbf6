"""The statistics of blocks reach the objective for each layer and row, whichever way the layers run."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from reporting_blocks import Reporting

from gptjax.data.facts import DataFacts
from gptjax.model.decoder import Decoder
from gptjax.model.placement import ONE_DEVICE, Placement
from gptjax.planning import plan

TOKENS = np.random.default_rng(1).integers(0, 29, (3, 12)).astype(np.int32)
WEIGHTS_L = np.array([1.0, -2.0, 0.5, 3.0])


def value_and_gradient(energies, params):
    """Value and gradient of a sum in which every layer and row has a different weight."""

    def loss(params):
        energy_LB = energies(params)
        return (energy_LB * WEIGHTS_L[:, None] * np.array([1.0, 2.0, 4.0])).sum(), energy_LB

    return jax.jit(jax.value_and_grad(loss, has_aux=True))(params)


def ways_of_running():
    """Every option once or twice; all combinations if exhaustive. With SSL, one of the four layers runs after the
    scan."""
    few = [("SL", "scan", "none"), ("SSL", "scan", "full"), ("SSL", "unroll", "dots"), ("SL", "unroll", "full")]
    for way in itertools.product(["SL", "SSL"], ["scan", "unroll"], ["none", "dots", "full"]):
        yield pytest.param(*way, id="-".join(way), marks=[] if way in few else pytest.mark.exhaustive)


@pytest.mark.parametrize("pattern, layers, remat", list(ways_of_running()))
def test_each_layer_reports_its_own_statistics(layers, remat, pattern, model_config, random_params):
    config = model_config(num_layers=4, window=3, window_pattern=pattern, layers=layers, remat=remat)
    params = random_params(config)

    def energies(params):
        _, statistics = Decoder(config, ONE_DEVICE, Reporting).apply({"params": params}, TOKENS, method="hidden")
        assert statistics["first"].shape == (4, 3, 16)
        return statistics["energy"]

    def plain(params):  # computed from the residual stream between the blocks of an unmodified decoder
        spy = Spy()
        Decoder(model_config(num_layers=4, window=3, window_pattern=pattern, layers="unroll"), spy).apply(
            {"params": params}, TOKENS, method="hidden"
        )
        return jnp.stack([jnp.square(x_BTD).mean((1, 2)) for x_BTD in spy.seen[1:]])

    (value, energy_LB), gradient = value_and_gradient(energies, params)
    (expected, expected_LB), expected_gradient = value_and_gradient(plain, params)
    np.testing.assert_allclose(energy_LB, expected_LB, rtol=1e-4)
    np.testing.assert_allclose(value, expected, rtol=1e-4)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-3), gradient, expected_gradient)


class Spy(Placement):
    """The placement of one device, which records the residual stream after the embedding and after every block."""

    def __init__(self):
        self.seen = []

    def residual(self, x_BTD):
        self.seen.append(x_BTD)
        return x_BTD


def stepped(tiny_config, objective, devices, **fields):
    """The metrics of one step on the same rows; some targets of some rows have no weight."""
    config = tiny_config(
        model__family="reporting_blocks:ReportingFamily",
        training__objective=f"reporting_blocks:{objective}",
        optimizer__name="sgd",
        **fields,
    )
    made = plan(config, DataFacts(32), jax.devices()[:devices])
    rng = np.random.default_rng(0)
    rows = {
        "tokens": rng.integers(0, 32, (16, 8)),
        "targets": rng.integers(0, 32, (16, 8)),
        "weights": rng.random((16, 8)) < 0.7,
    }
    with jax.set_mesh(made.mesh):
        batch = {
            name: jax.device_put(rows[name].reshape(like.shape).astype(like.dtype), like.sharding)
            for name, like in made.abstract_batch.items()
        }
        return jax.device_get(made.trainer.compile_train_step(batch)(made.trainer.init(), batch)[1])


@pytest.mark.exhaustive  # tests/parallel/test_same_model.py always tests a pipeline
def test_a_loss_of_statistics_is_the_same_for_any_batch_and_mesh(tiny_config):
    whole = stepped(tiny_config, "Small", 1)
    accumulated = stepped(tiny_config, "Small", 1, training__gradient_accumulation_steps=4, model__layers="scan")
    meshed = stepped(tiny_config, "Small", 8, mesh__data=2, mesh__fsdp=2, mesh__tensor=2, model__remat="full")
    for name in ("train/loss", "train/energy", "train/gradient_norm"):
        np.testing.assert_allclose(accumulated[name], whole[name], rtol=2e-5)
        np.testing.assert_allclose(meshed[name], whole[name], rtol=2e-5)
    without = stepped(tiny_config, "Indifferent", 1)
    assert "train/energy" not in without and without["train/loss"] == pytest.approx(whole["train/loss"], rel=1e-6)
    assert abs(without["train/gradient_norm"] / whole["train/gradient_norm"] - 1) > 1e-3
