"""One `shard_map` inside another, in steps that are traced and not compiled."""

import math
from types import SimpleNamespace

import jax
import pytest
from one_step import planned

NO_TOKENS = SimpleNamespace(vocab_size=0, token_bytes=lambda: [])
EXPERTS = dict(model__num_experts=2, model__layers="scan")


@pytest.mark.parametrize(
    "sizes, options",
    [
        (dict(data=2, fsdp=2), dict(training__loss_chunk=8)),
        (dict(pipeline=2, expert=2), EXPERTS),
        (dict(pipeline=2, data=2, expert=2), EXPERTS),
    ],
    ids=str,
)
def test_axes_of_inner_shard_maps_come_after_those_of_outer_ones_in_the_mesh(tiny_config, monkeypatch, sizes, options):
    """XLA lists an outer one's axes first. With jaxlib 0.12, it ends the process if this is not the mesh's order."""
    nested, shard_map = [], jax.shard_map

    def recorded(*arguments, **named):
        if outer := jax.sharding.get_abstract_mesh().manual_axes:
            nested.append((outer, named["axis_names"]))
        return shard_map(*arguments, **named)

    monkeypatch.setattr(jax, "shard_map", recorded)
    fields = {f"mesh__{axis}": size for axis, size in (dict(data=1) | sizes).items()}
    config = tiny_config(training__gradient_accumulation_steps=2, **options, **fields)
    made = planned(config, math.prod(sizes.values()))
    order = made.mesh.axis_names.index
    with jax.set_mesh(made.mesh):
        made.trainer.lower_train_step(made.abstract_batch)
        in_training = len(nested)
        jax.eval_shape(made.trainer.evaluation_step(NO_TOKENS), made.abstract_state.params, made.abstract_batch)
    assert in_training and ("pipeline" not in sizes or len(nested) > in_training)
    assert not [(outer, inner) for outer, inner in nested if max(map(order, outer)) > min(map(order, inner))]
