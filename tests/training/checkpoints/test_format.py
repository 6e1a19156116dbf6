"""A checkpoint written on one mesh is read bit for bit on any other."""

import math
import zlib

import jax
import numpy as np
import pytest

from gptjax.data.facts import DataFacts
from gptjax.model.tree import leaves_by_path
from gptjax.parallel.mesh import AXES
from gptjax.planning import plan
from gptjax.training.checkpoints.format import read_state, start_save

MESHES = [
    dict(data=1),
    dict(data=8),
    dict(data=2, fsdp=4),
    dict(data=2, tensor=4),
    dict(data=1, context=8, context_attention="ring"),
    dict(data=1, expert=4, tensor=2),
    dict(data=2, pipeline=4),
    dict(data=1, pipeline=2, expert=2, fsdp=2),
]
FEW = [(0, 7), (7, 4), (4, 0)]
OTHERS = [(a, b) for a in range(len(MESHES)) for b in range(len(MESHES)) if a != b and (a, b) not in FEW]


def abstract_state(tiny_config, mesh):
    """The state of a model whose parameters have all logical axes that meshes divide."""
    fields = {f"mesh__{field}": value for field, value in mesh.items()}
    config = tiny_config(
        model__num_layers=4, model__num_experts=4, model__num_kv_heads=4, training__ema_decay=0.9, **fields
    )
    devices = math.prod(size for field, size in mesh.items() if field in AXES)
    return plan(config, DataFacts(vocab_size=32), jax.devices()[:devices]).abstract_state


def random_values(path, leaf):
    """Different numbers in each array, the same on any mesh."""
    draw = np.random.default_rng(zlib.crc32(path.encode()))
    return np.asarray(draw.normal(size=leaf.shape) * 1000).astype(leaf.dtype)


@pytest.mark.parametrize("there, here", [*FEW, *(pytest.param(*pair, marks=pytest.mark.exhaustive) for pair in OTHERS)])
def test_a_state_moves_between_any_two_meshes(tiny_config, tmp_path, there, here):
    saved, wanted = (abstract_state(tiny_config, MESHES[number]) for number in (there, here))
    values = {path: random_values(path, leaf) for path, leaf in leaves_by_path(saved).items()}
    arrays = [
        jax.make_array_from_callback(leaf.shape, leaf.sharding, values[path].__getitem__)
        for path, leaf in leaves_by_path(saved).items()
    ]
    start_save(tmp_path / "1", jax.tree.unflatten(jax.tree.structure(saved), arrays), {"step": 1}).result()
    state, _ = read_state(tmp_path / "1", wanted)
    shardings = leaves_by_path(wanted)
    for path, array in leaves_by_path(state).items():
        assert array.sharding == shardings[path].sharding
        assert np.asarray(array).tobytes() == values[path].tobytes(), path
