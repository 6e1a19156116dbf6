"""Several processes act as one: each reads only its rows, and together they take the same steps and write the same
text."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest
from prepared_folders import write_prepared
from waiting import PATIENCE

from gptjax.config import default
from gptjax.parallel.distributed import local_rows, put_ahead, put_batch
from gptjax.parallel.mesh import make_mesh
from gptjax.tokenizer import CharacterTokenizer

WORKER = Path(__file__).parents[1] / "support" / "distributed_worker.py"


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def run_workers(num_processes, data):
    port, devices = free_port(), 4 // num_processes
    commands = [
        [sys.executable, str(WORKER), *map(str, (i, num_processes, port, devices, data))] for i in range(num_processes)
    ]
    environment = os.environ | {"JAX_PLATFORMS": "cpu", "PYTHONPATH": str(WORKER.parent.parent.parent)}
    processes = [subprocess.Popen(c, env=environment, stdout=subprocess.PIPE, text=True) for c in commands]
    outputs = [process.communicate(timeout=PATIENCE)[0] for process in processes]
    assert all(process.returncode == 0 for process in processes)
    return [json.loads(output.splitlines()[-1]) for output in outputs]


def test_two_processes_have_the_losses_score_and_text_of_one(tmp_path):
    ids = [np.arange(100) % 29, np.arange(60) % 31]
    data = write_prepared(tmp_path / "data", train=ids, validation=ids, tokenizer=CharacterTokenizer("abcdefgh"))
    (one,) = run_workers(1, data)
    two = run_workers(2, data)
    assert sorted(row for result in two for row in result["rows"]) == list(range(16))
    for result in two:
        np.testing.assert_allclose(result["losses"], one["losses"], rtol=1e-5)
        np.testing.assert_allclose(result["total"], one["total"], rtol=1e-5)
        assert result["score"].pop("validation/set") == one["score"]["validation/set"]
        assert [*result["score"].values()] == pytest.approx([one["score"][name] for name in result["score"]], rel=1e-6)
        assert result["written"] == one["written"]
    assert one["score"]["validation/tokens"] > 70
    assert [result["room"] for result in (one, *two)] == [[5 << 33, 1], [4 << 33, 2], [4 << 33, 2]]


@pytest.mark.parametrize("accumulation", [1, 4])
def test_a_batch_arrives_whole_and_in_order(accumulation):
    config = default().mesh
    config.update(fsdp=2, tensor=2)
    mesh = make_mesh(config, jax.devices())
    rows = local_rows(mesh, 16, accumulation)
    np.testing.assert_array_equal(rows, np.arange(16))
    array = np.arange(16 * 3).reshape(16, 3)
    placed = put_batch(mesh, {"tokens": array}, rows, 16, accumulation)["tokens"]
    np.testing.assert_array_equal(placed, array.reshape(accumulation, 16 // accumulation, 3))
    assert placed.sharding.shard_shape(placed.shape) == (accumulation, 16 // accumulation // 4, 3)


def test_batches_are_put_on_the_mesh_ahead_of_their_use(tiny_config):
    mesh = make_mesh(tiny_config().mesh)
    rows, drawn = local_rows(mesh, 8, 1), []

    def batches():
        for number in range(5):
            drawn.append(number)
            yield {"tokens": np.full((8, 4), number, np.int32)}

    placed = put_ahead(mesh, batches(), rows, 8, 1, ahead=2)
    for number, batch in enumerate(placed):
        assert batch["tokens"].shape == (1, 8, 4) and int(batch["tokens"][0, 0, 0]) == number
        assert len(drawn) == min(number + 3, 5)
    assert number == 4
