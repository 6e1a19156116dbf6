"""A process that saves and restores a toy state, for tests that need several processes or kill one.

python checkpoint_worker.py WORKDIR hammer                                  saves as fast as it can, until killed
python checkpoint_worker.py WORKDIR save|restore PORT NUM_PROCESSES ID      one of several processes
"""

import contextlib
import resource
import sys
from collections.abc import Iterator
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P
from ml_collections import ConfigDict

from gptjax.model.tree import map_with_path
from gptjax.training.checkpoints import folder as checkpoint_folder
from gptjax.training.checkpoints import format as checkpoint_format
from gptjax.training.checkpoints.format import CheckpointError
from gptjax.training.checkpoints.manager import Checkpoints
from gptjax.training.state import TrainState

FROZEN = ["embedding"]  # paths of parameters that are the same at every step
OPTIMIZER = optax.chain(
    optax.clip_by_global_norm(1.0),
    optax.masked(
        optax.adamw(1e-3, mu_dtype=jnp.bfloat16), {"embedding": True, "layers": {"query": True, "scale": False}}
    ),
)


def config(**changes) -> ConfigDict:
    return ConfigDict(dict(every="1 steps", keep_latest=2, keep_best=0, keep_every="") | changes)


def steps_of(duration: str) -> int:
    return int(duration.removesuffix(" steps"))


def mesh(*shape: int) -> jax.sharding.Mesh:
    """data × fsdp × tensor, over the first devices."""
    devices = jax.devices()[: int(np.prod(shape))]
    return jax.make_mesh(shape, ("data", "fsdp", "tensor"), axis_types=(AxisType.Auto,) * 3, devices=devices)


def _init(width: int, ema: bool) -> TrainState:
    params = {
        "embedding": jnp.zeros((64, width)),
        "layers": {"query": jnp.zeros((2, width, 4, 8)), "scale": jnp.zeros((2, width), jnp.bfloat16)},
    }
    monitor = {"loss_mean": jnp.zeros(()), "loss_variance": jnp.zeros(())}
    return TrainState(jnp.int32(0), params, OPTIMIZER.init(params), params if ema else None, monitor)


def abstract(mesh: jax.sharding.Mesh, width: int = 64, ema: bool = True) -> TrainState:
    """The state's shapes: parameters and arrays of their shape divided over fsdp and tensor, the rest replicated."""
    specs = {(64, width): P("fsdp", "tensor"), (2, width, 4, 8): P(None, "fsdp", "tensor")}
    return jax.tree.map(
        lambda leaf: leaf.update(sharding=NamedSharding(mesh, specs.get(leaf.shape, P()))),
        jax.eval_shape(lambda: _init(width, ema)),
    )


def state(step: int, mesh: jax.sharding.Mesh, width: int = 64, ema: bool = True) -> TrainState:
    """The state at `step`: different bits for every step, except in FROZEN, the same on every mesh."""
    generator, still = np.random.default_rng(step), np.random.default_rng(0)

    def array(path: str, leaf: jax.ShapeDtypeStruct) -> jax.Array:
        drawn = still if path.removeprefix("params/") in FROZEN else generator
        values = np.asarray(drawn.standard_normal(leaf.shape, np.float32) * 1000).astype(leaf.dtype)
        return jax.make_array_from_callback(leaf.shape, leaf.sharding, lambda index: values[index])

    return map_with_path(array, abstract(mesh, width, ema))


def assert_equal(found: TrainState, expected: TrainState) -> None:
    """Compares bit for bit every shard that this process holds."""
    assert jax.tree.structure(found) == jax.tree.structure(expected)
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        assert a.dtype == b.dtype and a.sharding == b.sharding
        for mine, yours in zip(a.addressable_shards, b.addressable_shards, strict=True):
            assert mine.index == yours.index
            assert np.asarray(mine.data).tobytes() == np.asarray(yours.data).tobytes()


HAMMER_WIDTH = 4096  # a state of several megabytes, so that saving takes longer than starting a save


def hammer(workdir: Path) -> None:
    one = mesh(1, 1, 1)
    checkpoints = Checkpoints(workdir, config(), steps_of)
    start = (checkpoints.latest_step() or 0) + 1
    for step in range(start, start + 1000):
        checkpoints.save(step, state(step, one, HAMMER_WIDTH), {})


def read_from_a_bad_disk() -> None:
    """Makes only this process see step 7 as missing, step 6 as damaged and step 5 as unreadable."""
    load, steps, read_metadata = checkpoint_format._load, checkpoint_folder.steps_in, checkpoint_format.read_metadata

    def bad_load(path: Path, parts: dict) -> dict:
        if path.name == "5":
            raise OSError("a disk of this process only")
        loaded = load(path, parts)
        if path.name == "6":
            step = loaded["optimizer"]["step"]  # a number that each process reads separately
            loaded["optimizer"]["step"] = jax.make_array_from_callback((), step.sharding, lambda _: np.int32(60))
        return loaded

    def read_bad_metadata(path: Path) -> dict:
        return read_metadata(path.with_name("70") if path.name == "7" else path)

    checkpoint_format._load, checkpoint_format.read_metadata = bad_load, read_bad_metadata
    checkpoint_folder.steps_in = lambda directory: [step for step in steps(directory) if step != 7]


@contextlib.contextmanager
def disk_full() -> Iterator[None]:
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, resource.RLIM_INFINITY))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY,) * 2)


def one_of_several(workdir: Path, action: str) -> None:
    several = mesh(1, 2, 2)
    with Checkpoints(workdir, config(keep_latest=4), steps_of, FROZEN) as checkpoints:
        if action == "save":
            for step, full in ((8, 1), (9, 0)):
                with disk_full() if jax.process_index() == full else contextlib.nullcontext():
                    checkpoints.save(step, state(step, several), {})
                    try:
                        checkpoints.wait()
                    except CheckpointError as error:
                        print(error, flush=True)
            for step in (1, 2):
                checkpoints.save(step, state(step, several), {}, {"validation/loss": step})
        else:
            before = checkpoints.all_steps()
            if jax.process_index() == 1:
                read_from_a_bad_disk()
            assert checkpoints.metadata()["step"] == 6
            found, metadata = checkpoints.restore(abstract(several))
            assert_equal(found, state(metadata["step"], several))
            checkpoints.save(5, state(5, several), {})  # the run reaches that step again
            checkpoints.wait()
            print(f"restored {metadata['step']} of {before}, now {checkpoints.all_steps()}", flush=True)


if __name__ == "__main__":
    workdir, action, *rest = sys.argv[1:]
    jax.config.update("jax_platforms", "cpu")
    if action == "hammer":
        hammer(Path(workdir))
    else:
        port, num_processes, process_id = map(int, rest)
        jax.config.update("jax_num_cpu_devices", 4 // num_processes)
        jax.distributed.initialize(f"127.0.0.1:{port}", num_processes, process_id)
        one_of_several(Path(workdir), action)
