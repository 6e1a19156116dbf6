"""The collectives of compiled programs: their bytes, their groups, and how often they run."""

import jax
import jax.numpy as jnp
import pytest
from jax.sharding import PartitionSpec as P

from gptjax.parallel.traffic import Collective, collectives_of

KIB = 1024  # bytes of an array of 256 float32 numbers on each device


def test_a_collective_in_a_loop_counts_once_per_iteration():
    mesh = jax.make_mesh((2, 4), ("data", "tensor"), axis_types=(jax.sharding.AxisType.Auto,) * 2)

    @jax.shard_map(mesh=mesh, in_specs=P(("data", "tensor")), out_specs=P(), check_vma=False)
    def program(x):
        def turn(x, _):
            for _ in range(2):
                gathered = jax.lax.all_gather(x, "tensor", tiled=True)
                x = jnp.sin(jax.lax.psum_scatter(jnp.cos(gathered), "tensor", tiled=True))
            return jax.lax.ppermute(x, "data", [(0, 1), (1, 0)]), None

        x, _ = jax.lax.scan(turn, x, length=3)
        x = jnp.sin(jax.lax.all_to_all(x.reshape(4, -1), "tensor", 0, 0)).reshape(-1)
        return jax.lax.psum(x, "data")

    compiled = jax.jit(program).lower(jnp.zeros(8 * 256)).compile()
    row, column = (0, 1, 2, 3), (0, 4)  # one of `tensor` and one of `data`
    assert sorted(merged(collectives_of(compiled.as_text(), 8))) == [
        Collective("all-gather", 4 * KIB, row, 6),
        Collective("all-reduce", KIB, column, 1),
        Collective("all-to-all", KIB, row, 1),
        Collective("collective-permute", KIB, column, 3),
        Collective("reduce-scatter", 4 * KIB, row, 6),
    ]


def merged(collectives):
    """Merges equal collectives."""
    times = {}
    for each in collectives:
        times[each[:3]] = times.get(each[:3], 0) + each.times
    return [Collective(*each, number) for each, number in times.items()]


@pytest.mark.parametrize(
    "instruction, expected",
    [  # as XLA writes them for GPUs
        (
            "(bf16[8,256]{1,0}, bf16[8,2048]{1,0}) all-gather-start(%x), "
            "replica_groups=mesh['axis_0'=2,'axis_1'=8,'axis_2'=1] {'axis_1'}, dimensions={1}",
            Collective("all-gather", 8 * 2048 * 2, tuple(range(8)), 1),
        ),
        (
            "f32[64]{0} all-reduce(%x), replica_groups=mesh['a'=8,'b'=1,'c'=2], device_ids=([2,8]T(1,0)) {'c'}, ",
            Collective("all-reduce", 256, (0, 8), 1),
        ),
        (
            "((f32[64]{0}, f32[32]{0}), (f32[8]{0}, f32[4]{0})) reduce-scatter-start(%x, %y), "
            "replica_groups=[2,8]<=[8,2]T(1,0), dimensions={0}",
            Collective("reduce-scatter", 96 * 4, tuple(range(0, 16, 2)), 1),
        ),
        ("f32[10]{0} all-reduce-start(%x), replica_groups={}", Collective("all-reduce", 40, tuple(range(16)), 1)),
        (
            "((s32[8,2]{1,0}), s32[8,2]{1,0}) all-to-all-start(%x), replica_groups={{0,3},{1,2}}",
            Collective("all-to-all", 64, (0, 3), 1),
        ),
        (
            "(bf16[6]{0}, bf16[6]{0}) collective-permute-start(%x), source_target_pairs={{0,4},{4,8}}",
            Collective("collective-permute", 12, (0, 4), 1),
        ),
    ],
)
def test_instructions_for_gpus(instruction, expected):
    text = f"ENTRY %main (x: f32[1]) -> f32[1] {{\n  %y = {instruction}, channel_id=1\n}}\n"
    assert collectives_of(text, 16) == [expected]


def test_the_bytes_that_a_device_sends_and_the_number_of_nodes():
    gather, reduce = Collective("all-gather", 800, (0, 2, 4, 8), 1), Collective("all-reduce", 800, (0, 2, 4, 8), 1)
    assert (gather.bytes_sent(), reduce.bytes_sent()) == (600, 1200)
    assert (gather.nodes(8), gather.nodes(4), gather.nodes(2)) == (2, 3, 4)


def test_a_loop_of_unknown_length_is_refused():
    body = "%body (x: f32[1]) -> f32[1] {\n  %y = f32[1]{0} all-reduce(%x), replica_groups={}\n}\n"
    main = "ENTRY %main (x: f32[1]) -> f32[1] {\n  %z = f32[1]{0} while(%x), condition=%c, body=%body\n}\n"
    with pytest.raises(ValueError, match="does not say how often"):
        collectives_of(body + main, 2)
