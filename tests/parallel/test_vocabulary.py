"""What devices send for the embedding and the head, read from compiled programs.

tests/parallel/test_same_model.py compares the values with those of one device.
"""

import re

import jax
import pytest

from gptjax.data.facts import DataFacts
from gptjax.parallel.traffic import collectives_of
from gptjax.planning import plan

VOCABULARY, WIDTH, POSITIONS = 96, 40, 56
HEAD, TABLE_OF_POSITIONS = 4 * VOCABULARY * WIDTH, 4 * POSITIONS * WIDTH  # bytes; no other array has as many


def step_of(tiny_config, mesh, **fields):
    """The lowered step of a mesh, and what its devices send. Each device holds the logits of 32 tokens at a time."""
    shape = dict(model__vocab_size=VOCABULARY, model__width=WIDTH, model__max_positions=POSITIONS, model__num_layers=1)
    fields |= {f"mesh__{axis}": size for axis, size in (dict(data=1) | mesh).items()}
    config = tiny_config(**shape, **fields, model__dtype="bfloat16", training__loss_chunk=32)
    made = plan(config, DataFacts(vocab_size=32), jax.devices()[:4])
    with jax.set_mesh(made.mesh):
        lowered = made.trainer.lower_train_step(made.abstract_batch)
    return lowered, collectives_of(lowered.compile().as_text(), 4)


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("mesh", [dict(fsdp=4), dict(fsdp=2, tensor=2)], ids=str)
def test_the_head_is_gathered_once_and_its_gradient_scattered_once(tiny_config, mesh, tied):
    """Both happen outside of the loop over chunks; with `tensor`, for a device's part of the vocabulary. A lookup takes
    one all-to-all along each axis, forward and backward, and no table is ever sent."""
    fields = dict(model__tied_embeddings=tied, model__position="learned")
    lowered, sent = step_of(tiny_config, mesh, **fields)
    part = HEAD // mesh.get("tensor", 1)
    assert sorted((each.kind, each.times) for each in sent if each.bytes == part) == [
        ("all-gather", 1),
        ("reduce-scatter", 1),
    ]
    forbidden = {TABLE_OF_POSITIONS} | ({HEAD} if part < HEAD else set())
    assert not [each for each in sent if each.bytes in forbidden]
    # XLA:CPU sends in float32 what a GPU sends in bfloat16, so the type is read before it compiles.
    assert f"{WIDTH}x{part // 4 // WIDTH}xbf16" in re.findall(r"all_gather.*-> tensor<(.*)>", lowered.as_text())
    if not tied:  # with tensor, a tied head is moved from columns of the stream to rows of the vocabulary
        assert [each.kind for each in sent].count("all-to-all") == 2 * len(mesh)
