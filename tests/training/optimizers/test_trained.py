"""Frozen parameters have no gradients: the others' are the same as without freezing, and a step computes less."""

import jax
import numpy as np
import pytest
from compiled_work import work_of
from one_step import PLAIN, planned, step_of

from gptjax.model.tree import leaves_by_path
from gptjax.parallel.compiled import products_of
from gptjax.training.optimizers.trained import completed, trained_only

LAST_BLOCK = ((".*", "freeze", True), ("layers/1/.*|final_norm/.*|head", "freeze", False))
ATTENTION = (("(embedding|head|final_norm/.*|layers/feedforward.*)", "freeze", True),)


@pytest.fixture
def config_of(tiny_config):
    return lambda rules=(), **fields: tiny_config(
        optimizer__rules=rules, model__tied_embeddings=False, **PLAIN | fields
    )


@pytest.mark.parametrize(
    "rules, fields",
    [
        (LAST_BLOCK, dict(model__layers="unroll")),
        pytest.param(
            *(ATTENTION, dict(model__layers="scan", training__gradient_accumulation_steps=2)),
            marks=pytest.mark.exhaustive,
        ),
        pytest.param(
            *(ATTENTION, dict(model__layers="scan", mesh__data=2, mesh__fsdp=2, mesh__zero1=True)),
            marks=pytest.mark.exhaustive,
        ),
        pytest.param(LAST_BLOCK, dict(model__layers="scan", mesh__pipeline=2), marks=pytest.mark.exhaustive),
        pytest.param(
            *(LAST_BLOCK, dict(model__layers="unroll", mesh__data=2, training__gradient_accumulation_steps=2)),
            marks=pytest.mark.exhaustive,
        ),
    ],
)
def test_gradients_of_trained_parameters_are_those_of_an_unfrozen_step(config_of, rules, fields):
    devices = int(np.prod([size for name, size in fields.items() if name.startswith("mesh__") and size is not True]))
    loss, whole = step_of(config_of(), 1)
    frozen_loss, gradients = step_of(config_of(rules, **fields), devices)
    np.testing.assert_allclose(frozen_loss, loss, rtol=1e-5)
    treatments = planned(config_of(rules, **fields), devices).trainer.treatments
    for path, gradient in leaves_by_path(gradients).items():
        expected = np.array(leaves_by_path(whole)[path])
        if treatments[path].per_layer:
            expected[:-1] = 0
        elif treatments[path].method == "frozen":
            expected[:] = 0
        np.testing.assert_allclose(gradient, expected, atol=1e-4 * max(np.abs(expected).max(), 1e-3))


FIRST_BLOCK = (("embedding|head|layers/0/.*", "freeze", True),)


@pytest.mark.parametrize(
    "rules", [LAST_BLOCK, ATTENTION, pytest.param(FIRST_BLOCK, marks=pytest.mark.exhaustive)], ids=len
)
def test_the_flops_of_frozen_parameters_are_those_of_the_compiled_step(config_of, rules):
    """The difference to training everything, and so without what the formula leaves out in both."""

    def flops(rules):
        fields = {"model__layers": "unroll", "data__sequence_length": 32, "training__batch_size": 4}
        made = planned(config_of(rules, **fields, model__feedforward_width=64, model__max_positions=32), 1)
        with jax.set_mesh(made.mesh):
            text = made.trainer.compile_train_step(made.abstract_batch).as_text()
        return products_of(text)[0], made.flops_per_token["full"] * made.tokens_per_step, made.flop_formulas["full"]

    (whole, counted_whole, _), (part, counted_part, formula) = flops(()), flops(rules)
    assert counted_whole - counted_part == pytest.approx(whole - part, rel=0.02)
    assert "N_frozen" in formula and ("N_below" in formula) == (rules != ATTENTION)


def test_a_step_computes_and_keeps_less_if_parameters_are_frozen(config_of):
    def cost(rules):
        made = planned(config_of(rules, model__layers="unroll"), 1)
        with jax.set_mesh(made.mesh):
            compiled = made.trainer.compile_train_step(made.abstract_batch)
        return work_of(compiled)["products"], compiled.memory_analysis().temp_size_in_bytes

    everything, last_block = cost(()), cost(LAST_BLOCK)
    # The first block is computed forward only, a third of its products.
    assert last_block[0] < 0.72 * everything[0] and last_block[1] < 0.8 * everything[1], (everything, last_block)


def test_statistics_of_trained_layers_are_split_over_data_too(config_of):
    config = config_of(LAST_BLOCK, mesh__data=4, mesh__zero1=True, optimizer__name="adamw")
    moments = leaves_by_path(planned(config, 4).trainer.abstract_state.opt_state)
    split = [x.sharding.spec for path, x in moments.items() if path.endswith("attention/query")]
    assert len(split) == 2 and all("data" in str(spec) for spec in split)


def test_statistics_of_trained_layers_are_split_over_the_mesh_like_their_stack(config_of):
    """Except over the stages of a pipeline that cannot share these layers equally."""
    mesh = dict(mesh__data=1, mesh__fsdp=2, mesh__tensor=2, mesh__pipeline=2)
    state = planned(config_of(LAST_BLOCK, **mesh, optimizer__name="adamw", model__layers="scan"), 8).abstract_state
    moments = {path: x for path, x in leaves_by_path(state.opt_state).items() if path.endswith("attention/query")}
    query = leaves_by_path(state.params)["layers/attention/query"]
    assert len(moments) == 2 and query.sharding.spec[0] == "pipeline" and any(query.sharding.spec[1:])
    for moment in moments.values():
        assert moment.shape == (1, *query.shape[1:]) and tuple(moment.sharding.spec) == (None, *query.sharding.spec[1:])


def test_frozen_parameters_are_none_and_come_back(config_of):
    made = planned(config_of(ATTENTION), 1).trainer
    params = made.abstract_state.params
    trained = trained_only(params, made.treatments)
    assert all("/attention" in path for path in leaves_by_path(trained)) and trained["embedding"] is None
    assert completed(trained, params) == params
