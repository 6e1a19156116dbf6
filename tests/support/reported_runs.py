"""A run with everything that a report shows: metrics, two starts, a checkpoint, prepared data, results, samples.

Its folder, its data and its metrics hold names of machines, and its name, its samples and its results hold markup.
"""

import json

import jax
import jax.numpy as jnp
from prepared_folders import random_documents, write_prepared
from random_models import MAX_POSITIONS, TOKENIZER, make_model

from gptjax import config as configs
from gptjax.data.prepared import read_manifest, split_files
from gptjax.evaluation.results import results_folder, write_results
from gptjax.settings import freeze
from gptjax.training.checkpoints.manager import Checkpoints
from gptjax.training.checkpoints.run_metadata import run_metadata
from gptjax.training.state import TrainState

MARKUP = "<script>alert('x')</script>"
HOST = "node17.cluster.internal"
STEPS = 60


def write_run(folder, data, objective="next_token", checkpoint=True, imported=None, seed=0, **training):
    """Writes the run and its prepared folder `data`, and returns the run's config."""
    params, small = make_model()
    params = jax.tree.map(lambda x: x * (1 + seed), params)
    config = configs.default()
    config.model.update(dict(small.model.items()))
    config.data.update(path=str(data), sequence_length=MAX_POSITIONS)
    config.training.update(duration=f"{STEPS} steps", batch_size=4, objective=objective, **training)
    config.evaluation.sample_prompt = "The "
    config = freeze(config)
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(configs.to_json(config))
    TOKENIZER.save(folder)
    data.parent.mkdir(parents=True, exist_ok=True)
    documents = [ids % 256 for ids in random_documents(40, 30)]
    write_prepared(data, train=documents, validation=[[1, 2, 3]], tokenizer=TOKENIZER)
    write_metrics(folder)
    write_history(folder, config)
    (folder / "samples").mkdir()
    (folder / "samples" / "step_00000030.txt").write_text(f"The {MARKUP} ``` `code` at {folder.resolve()} /usr/bin/env")
    if checkpoint:
        write_checkpoint(folder, config, params, data, {"imported": imported} if imported else {})
        write_evaluation(folder)
    return config


def write_metrics(folder):
    rows = []
    for step in range(1, STEPS + 1):
        row = {"step": step, "tokens": 100 * step, "train/loss": 5.0 - step / 20, "train/gradient_norm": 1.0}
        row |= {"tokens_per_second": 50.0, "step_milliseconds": 2000.0, "mfu": 0.25, "learning_rate": 1e-3}
        row |= {"elapsed_seconds": 2.5 * (step if step <= 40 else step - 40), "train/loss_zscore": 0.5, "host": HOST}
        row |= {"device_memory_bytes": 2**30, f"train/speed_on_{HOST}": float(step), f"tasks/{MARKUP}/accuracy": 0.5}
        if step % 20 == 0:
            row |= {"validation/loss": 4.5 - step / 40, "validation/set": "abc", "validation/tokens": 1000}
        rows.append(row)
    rows[49]["train/loss_zscore"] = 9.5
    rows[50]["train/skipped"] = 1
    text = "".join(json.dumps(row) + "\n" for row in rows)
    (folder / "metrics.jsonl").write_text(text + '{"step": 61, "train/lo')


def write_history(folder, config):
    hardware = {"platform": "gpu", "kind": "NVIDIA H100 80GB HBM3", "devices": 2, "processes": 1, "peak_flops": 2e15}
    hardware |= {"peak": "of 2 × 989 TFLOP/s", "cores": None}
    first = {"step": 0, "time": "2026-01-02T03:04:05+00:00", "version": "0.1.0", "git_revision": "f" * 40}
    first |= {"config": configs.hash_of(config), "changes": {}, "companions": {}, "hardware": hardware}
    change = {"optimizer.learning_rate": [0.002, 0.001], "data.path": ["/mnt/secret/old", config.data.path]}
    second = {**first, "step": 40, "time": "2026-01-03T03:04:05+00:00", "changes": change}
    (folder / "history.jsonl").write_text("".join(json.dumps(row) + "\n" for row in (first, second)))


def write_checkpoint(folder, config, params, data, more):
    fingerprint = {"tokenizer_hash": TOKENIZER.hash, "begin_id": TOKENIZER.eos_id}
    manifest = read_manifest(data)
    files = split_files(manifest, "train")
    fingerprint["sources"] = [{"weight": None, "tokens": manifest["splits"]["train"]["tokens"], "files": files}]
    with Checkpoints(folder, configs.default().checkpoint, int) as checkpoints:
        state = TrainState(
            step=jnp.int32(STEPS), params=jax.tree.map(jnp.asarray, params), opt_state=(), ema=None, monitor={}
        )
        metadata = run_metadata(config, fingerprint, tokens=100 * STEPS) | more
        checkpoints.save(STEPS, state, metadata, {"validation/loss": 3.0, "validation/set": "abc"})


def write_evaluation(folder, value=0.625, step=STEPS):
    identity = {
        "run": folder.name,
        "step": step,
        "checkpoint": "c",
        "tokenizer": TOKENIZER.hash,
        "context": MAX_POSITIONS,
    }
    score = {"value": value, "standard_error": 0.0315}
    task = {"kind": "multiple_choice", "metric": "accuracy", "scores": {"accuracy": score}, "items": 200, "of": 200}
    task |= {"few_shot": 0, "baseline": 0.25, "skipped": {}, "truncated": 0, "hashes": {"file": "a", "prompts": "b"}}
    task |= {"contamination": {"contaminated": 3, "clean_scores": {"accuracy": score}}}
    known = {**task, "hub": {"dataset": "owner/quiz", "task_id": "quiz"}}
    tasks = {"quiz": known, MARKUP: task}
    write_results(results_folder(folder, step), {**identity, "dtype": "float32"}, {"tasks": tasks})
