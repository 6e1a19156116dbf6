"""Losses, metrics and biases of routers equal hand computations, and agree for one batch, micro-batches and meshes."""

import dataclasses
import functools

import jax.numpy as jnp
import numpy as np
import pytest
from one_step import PLAIN, assert_same, planned, step_of

from gptjax.model.tree import leaves_by_path
from gptjax.settings import TrainingSettings
from gptjax.training.routing import balanced, router_losses, router_metrics

TRAINING = TrainingSettings(load_balance_loss=1.0, router_z_loss=0.0)


def statistics_of(load_BE, probability_BE):
    load_BE, probability_BE = np.float32(load_BE), np.float32(probability_BE)
    zeros_LB = np.zeros((1, len(load_BE)), np.float32)
    tokens_LB = probability_BE.sum(-1)[None]
    return {
        "expert_tokens": load_BE[None],
        "router_probability": probability_BE[None],
        "router_z": zeros_LB,
        "router_entropy": zeros_LB,
        "router_tokens": tokens_LB,
    }


def test_load_balance_over_rows_and_over_a_batch():
    """Each row chooses a single expert, which is the worst case for a row but balanced for the batch."""
    statistics = statistics_of([[4, 0], [0, 4]], [[4, 0], [0, 4]])
    by_row, _ = router_losses(statistics, jnp.array([4.0, 4.0]), TRAINING)
    by_batch, _ = router_losses(
        statistics, jnp.array([4.0, 4.0]), dataclasses.replace(TRAINING, load_balance_over="batch")
    )
    assert (float(by_row) / 8, float(by_batch) / 8) == (2.0, 1.0)


def test_drops_are_reported_as_a_fraction_of_the_choices():
    """Two rows with weights 3 and 1: two of four choices were dropped in the first, none in the second."""
    statistics = statistics_of([[4, 0], [0, 4]], [[4, 0], [0, 4]]) | {"expert_drops": jnp.array([[2.0, 0.0]])}
    _, figures = router_losses(statistics, jnp.array([3.0, 1.0]), TRAINING)
    assert float(figures["expert_drops"]) / 4 == 0.375


def test_metrics_of_a_load():
    metrics = router_metrics({"loss": jnp.array(1.0), "expert_tokens": jnp.array([[1.0, 3.0, 0.0, 0.0]])})
    assert metrics.pop("expert_load").tolist() == [[1.0, 3.0, 0.0, 0.0]]
    assert {name: float(each) for name, each in metrics.items()} == dict(
        loss=1.0, expert_load_max=3.0, experts_unused=0.5
    )
    many = router_metrics({"expert_tokens": jnp.ones((48, 128))})
    assert many.keys() == {"expert_load_max", "experts_unused"}


def test_a_bias_moves_against_the_load_imbalance():
    params = {"layers": {"feedforward": {"router_bias": jnp.zeros((1, 3)), "up": jnp.zeros((1, 3))}}}
    moved = balanced(params, {"expert_tokens": jnp.array([[5.0, 3.0, 1.0]])}, 0.5)["layers"]["feedforward"]
    assert moved["router_bias"].tolist() == [[-0.5, 0.0, 0.5]] and not moved["up"].any()


EXPERTS = dict(
    model__num_experts=4,
    model__feedforward_width=16,
    model__router_bias=True,
    model__router_scores="sigmoid",
    model__shared_experts=1,
    training__load_balance_loss=0.5,
    training__router_z_loss=0.1,
    **PLAIN,
)


@functools.cache
def on_one_device(config):
    return step_of(config, 1)


@pytest.mark.parametrize(
    "devices, fields",
    [
        pytest.param(
            *(1, dict(training__gradient_accumulation_steps=4, model__layers="scan")), marks=pytest.mark.exhaustive
        ),
        pytest.param(
            *(8, dict(mesh__data=2, mesh__expert=2, mesh__tensor=2, model__remat="dots")), marks=pytest.mark.exhaustive
        ),
        (
            8,
            dict(mesh__data=1, mesh__fsdp=2, mesh__expert=2, mesh__context=2, training__gradient_accumulation_steps=2),
        ),
    ],
    ids=str,
)
def test_micro_batches_and_meshes_equal_one_batch_on_one_device(tiny_config, devices, fields):
    assert_same(on_one_device(tiny_config(**EXPERTS)), step_of(tiny_config(**EXPERTS | fields), devices))


def test_a_bias_has_no_gradient_and_yet_is_saved_in_each_checkpoint_since_steps_move_it(tiny_config):
    rules = (("final_norm/.*", "freeze", True),)
    trainer = planned(tiny_config(**EXPERTS, optimizer__rules=rules), 1).trainer
    (bias,) = [path for path in trainer.treatments if path.endswith("router_bias")]
    assert trainer.treatments[bias].method == "frozen" and trainer.frozen == ["final_norm/scale"]
    assert leaves_by_path(on_one_device(tiny_config(**EXPERTS))[1])[bias].all()
