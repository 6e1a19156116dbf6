"""The residual stream, divided over the devices of `tensor` between sub-layers."""

import jax
import pytest
from compiled_work import work_of

from gptjax.data.facts import DataFacts
from gptjax.planning import plan

LAYERS = 3


def work(config, devices):
    made = plan(config, DataFacts(vocab_size=32), jax.devices()[:devices])
    with jax.set_mesh(made.mesh):
        return work_of(made.trainer.compile_train_step(made.abstract_batch))


@pytest.mark.parametrize("length, times", [(8, 4), (7, 0)])
def test_each_sub_layer_gathers_its_input_and_the_gradient_of_its_output(tiny_config, length, times):
    """Seven tokens do not divide over two devices, so they stay whole and their sums are all-reduced."""
    fields = dict(model__num_layers=LAYERS, model__layers="scan", data__sequence_length=length, training__batch_size=2)
    found = work(tiny_config(**fields, mesh__data=1, mesh__tensor=2), 2)
    beside = 3  # the embedding's table, the input of the head, its gradient
    assert times * LAYERS <= found["all-gather"] <= times * LAYERS + beside
    # On a GPU, an all-reduce of which each device keeps a part is a reduce-scatter.
    assert found["all-reduce"] >= 4 * LAYERS
    assert found["products"] < 0.6 * work(tiny_config(**fields), 1)["products"]
