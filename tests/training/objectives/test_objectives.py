"""A user's own objective trains, is evaluated and selects the best checkpoint, without a change to the training
loop."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from ml_collections import ConfigDict
from prepared_folders import write_prepared
from training_runs import train_opened

from gptjax import train as command
from gptjax.config import ConfigError, default
from gptjax.evaluation.scores import Score
from gptjax.tokenizer import ByteTokenizer
from gptjax.training.checkpoints.loading import load_params
from gptjax.training.objectives import OBJECTIVES, NextToken, make_objective
from gptjax.training.records.writers import read_metrics


class Fading(NextToken):
    """Next token with an auxiliary loss, an additional metric, frozen parameters, and a score for which higher is
    better.

    The score falls from evaluation to evaluation, so the first checkpoint is the best one.
    """

    scores = (Score("validation/freshness", "freshness", "freshness {:.2f}", higher_is_better=True),)
    evaluations = 0

    def loss(self, model, params, batch, dropout_keys_B=None):
        loss_sum, figures = super().loss(model, params, batch, dropout_keys_B)
        weight = self.weight(batch)
        penalty = jnp.sum(jnp.square(params["final_norm"]["scale"])) * weight
        return loss_sum + 0.01 * penalty, figures | {
            "penalty": penalty,
            "odd": jnp.sum(batch["targets"] % 2 * batch["weights"]),
        }

    def trains(self, path):
        return path != "embedding"

    def scores_of(self, sums):
        Fading.evaluations += 1
        return {"validation/freshness": 1 / Fading.evaluations, "validation/tokens": sums["tokens"]}


@pytest.fixture
def run_of(tmp_path):
    tokenizer = ByteTokenizer()
    ids = [*tokenizer.encode("the quick brown fox; " * 20), tokenizer.eos_id]
    data = write_prepared(tmp_path / "data", train=[ids] * 2, validation=[ids], tokenizer=tokenizer)

    def make(**training):
        config = default()
        config.model.update(num_layers=1, width=16, num_heads=2)
        config.data.update(path=str(data), sequence_length=16)
        config.training.update(duration="8 steps", batch_size=16, **training)
        config.mesh.update(data=4, fsdp=2)
        config.checkpoint.update(every="2 steps", keep_latest=1, keep_best=1)
        config.evaluation.update(every="2 steps", tokens=128)
        config.logging.update(every="4 steps", tensorboard=False, plots=False)
        return command.open_run(config, tmp_path / "run")

    return make


def test_a_users_own_objective_works_in_a_whole_run(run_of, monkeypatch):
    monkeypatch.setitem(OBJECTIVES, "fading", Fading)
    run = run_of(objective="fading", gradient_accumulation_steps=2)
    with jax.set_mesh(run.plan.trainer.mesh):
        start = jax.device_get(run.plan.trainer.init().params)
    train_opened(run)
    rows = read_metrics(run.workdir / "metrics.jsonl")
    logged = [row for row in rows if "train/loss" in row]
    # Metrics are means over the interval's supervised tokens, like the loss.
    assert [row["step"] for row in logged] == [4, 8]
    assert all(0 < row["train/odd"] < 1 and row["train/penalty"] > 0 for row in logged)
    scores = [row["validation/freshness"] for row in rows if "validation/freshness" in row]
    assert scores == sorted(scores, reverse=True) and len(scores) == 4
    # Higher is better: the first checkpoint stays as the best, besides the latest.
    _, best = load_params(run.workdir, "best")
    assert best["step"] == 2 and best["judged_by"] == ["validation/freshness", True]
    latest, _ = load_params(run.workdir)
    np.testing.assert_array_equal(latest["embedding"], start["embedding"])  # because of `trains`
    assert not np.array_equal(latest["final_norm"]["scale"], start["final_norm"]["scale"])


def test_metrics_do_not_depend_on_micro_batches(run_of, monkeypatch):
    monkeypatch.setitem(OBJECTIVES, "fading", Fading)
    found = []
    for accumulation in (1, 2):
        run = run_of(objective="fading", gradient_accumulation_steps=accumulation)
        with jax.set_mesh(run.plan.trainer.mesh):
            step = run.plan.trainer.compile_train_step(run.plan.trainer.abstract_batch())
            found.append(jax.device_get(step(run.plan.trainer.init(), next(command.device_batches(run, 0)))[1]))
    for name in ("train/loss", "train/penalty", "train/odd", "train/gradient_norm"):
        np.testing.assert_allclose(found[0][name], found[1][name], rtol=2e-5)


OWN = """
from gptjax.training.objectives import NextToken, Objective

class Same(NextToken):
    pass

class Partial(Objective):
    scores = NextToken.scores

class Broken(NextToken):
    def __init__(self, config):
        raise RuntimeError("not today")

def function(config): pass
"""


@pytest.mark.parametrize(
    "name, message",
    [
        ("next_tokens", r"training.objective = 'next_tokens': expected one of .*did you mean next_token"),
        ("own_objective:function", r"must be a subclass of gptjax.training.objectives.Objective"),
        ("own_objective:Partial", r"must define evaluation, loss, open_data, row_fields, scores_of, weight"),
        ("own_objective:Broken", r"own_objective.py, line 12: RuntimeError: not today"),
    ],
)
def test_invalid_objectives_are_refused(name, message, tmp_path, monkeypatch):
    (tmp_path / "own_objective.py").write_text(OWN)
    monkeypatch.syspath_prepend(tmp_path)
    config = default()
    config.training.objective = name
    with pytest.raises(ConfigError, match=message):
        make_objective(config)


def test_a_config_can_name_an_objective(tmp_path, monkeypatch):
    (tmp_path / "own_objective_two.py").write_text(OWN)
    monkeypatch.syspath_prepend(tmp_path)
    config = ConfigDict(default())
    config.training.objective = "own_objective_two:Same"
    made = make_objective(config)
    assert type(made).__name__ == "Same" and isinstance(made, NextToken)
    assert json.dumps([score.name for score in made.scores])
