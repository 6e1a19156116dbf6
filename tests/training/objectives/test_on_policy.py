"""Models learn from what they write: the texts, the losses of GRPO, and that runs continue exactly on every mesh."""

import functools
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from one_step import PLAIN, assert_same, random_batch, step_of
from prepared_folders import write_prepared
from report_of_run import words_of_report
from scipy.special import log_softmax
from training_runs import losses_and_scores, train_run

from gptjax import train as command
from gptjax.config import ConfigError, default, to_json
from gptjax.model import lora
from gptjax.model.families import family_of
from gptjax.parallel.distributed import put_batch
from gptjax.tokenizer import ByteTokenizer
from gptjax.training.companions import Companion
from gptjax.training.objectives import make_objective
from gptjax.training.objectives.grpo import clipped_gain
from gptjax.training.records.writers import read_metrics
from gptjax.training.rollout import EVALUATION

pytestmark = pytest.mark.slow

TOKENIZER = ByteTokenizer()
EOS = TOKENIZER.eos_id
GROUPS = dict(data__source_length=3, training__group_size=4)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Prompts that ask for their own letter, and the run of a model that has seen a few."""
    folder = tmp_path_factory.mktemp("on_policy")
    letters = [TOKENIZER.encode(letter) for letter in "abcdefgh" * 4]
    documents = [[*letter, EOS] for letter in letters for _ in range(2)]
    write_prepared(folder / "data", train=documents, validation=documents[:32], form="pairs")
    base = config_of(
        folder,
        training__objective="completion",
        training__duration="30 steps",
        optimizer__learning_rate=3e-2,
        evaluation__every="",
        checkpoint__every="30 steps",
    )
    train_run(base, folder / "base")
    return folder


def config_of(folder, **fields):
    config = default()
    config.model.update(num_layers=1, width=16, num_heads=2)
    config.data.update(path=str(folder / "data"), sequence_length=6, source_length=3)
    config.training.update(duration="4 steps", batch_size=8, objective="grpo", group_size=4)
    config.optimizer.learning_rate = 1e-2
    config.checkpoint.update(every="2 steps", keep_latest=5)
    config.evaluation.update(every="2 steps", tokens=0)
    config.logging.update(every="1 step", tensorboard=False, plots=False)
    for field, value in fields.items():
        section, name = field.split("__")
        config[section][name] = value
    return config


def opened(folder, workdir, **fields):
    return command.open_run(config_of(folder, training__init_from=str(folder / "base"), **fields), workdir)


def first_batch(run):
    with jax.set_mesh(run.mesh), command.open_checkpoints(run) as checkpoints:
        state, *_ = command.start(run, checkpoints)
        batch = command.make_batches(run, 0)(state.params, 0)
        return jax.device_get(batch), jax.device_get(state.params)


def test_texts_are_drawn_from_the_model_itself_on_every_mesh(folder, tmp_path):
    one = dict(mesh__data=8)
    batch, params = first_batch(opened(folder, tmp_path / "one", **one))
    mesh = dict(mesh__data=2, mesh__fsdp=2, mesh__tensor=2, training__gradient_accumulation_steps=2)
    divided, _ = first_batch(opened(folder, tmp_path / "divided", **mesh))
    for name, array in batch.items():
        other = divided[name].reshape(array.shape)
        np.testing.assert_allclose(array, other, atol=1e-4, err_msg=name)

    tokens, targets, weights = (batch[name][0].reshape(32, 6) for name in ("tokens", "targets", "weights"))
    np.testing.assert_array_equal(targets[:, :-1] * weights[:, :-1], tokens[:, 1:] * weights[:, :-1])
    assert (tokens[:, 0] == EOS).all() and (tokens[:, 2] == EOS).all() and (weights[:, :2] == 0).all()
    assert (tokens[:, 1].reshape(8, 4) == tokens[:, 1].reshape(8, 4)[:, :1]).all()  # a group has one prompt
    written = weights.sum(axis=1)
    assert (written >= 1).all() and written.min() < 3, "some texts end before their room does"
    # The model would give the written tokens the log-probabilities that they were drawn with.
    config = opened(folder, tmp_path / "one", **one).config
    logits = jax.jit(family_of(config.model).module().apply)({"params": params}, tokens)
    logs = np.take_along_axis(log_softmax(np.float64(logits), -1), targets[..., None], -1)[..., 0]
    np.testing.assert_allclose(batch["logprobs"][0].reshape(32, 6), logs * weights, atol=1e-4)
    assert len({tuple(row) for row in tokens}) > 16  # the texts of a group differ
    # A text is right if it is the letter of the prompt and ends.
    right = (tokens[:, 3] == tokens[:, 1]) & (targets[:, 3] == EOS) & (written == 2)
    np.testing.assert_array_equal(batch["rewards"].reshape(-1), right)


def test_what_an_evaluation_draws_does_not_depend_on_the_size_of_its_batches(folder, tmp_path):
    run, texts = opened(folder, tmp_path / "run"), []
    trainer = run.plan.trainer
    with jax.set_mesh(run.mesh):
        params, rollout = trainer.init().params, trainer.objective.rollout(run.mesh, run.tokenizer)
        for size in (8, 16):
            rows = np.arange(size)
            batches = trainer.objective.open_data("validation", size).batches(0, rows)
            made = [rollout(params, put_batch(run.mesh, batch, rows, size, 1), EVALUATION) for batch in batches]
            texts.append(np.concatenate([jax.device_get(batch["tokens"])[0] for batch in made]))
    assert texts[0].shape == (16, 4, 6)
    np.testing.assert_array_equal(*texts)


def test_gains_are_clipped_where_they_would_grow():
    ratio, advantage = np.array([0.5, 0.5, 1.5, 1.5, 1.1]), np.array([1.0, -1.0, 1.0, -1.0, 1.0])
    gain, clipped = clipped_gain(jnp.log(ratio), jnp.array(advantage), 0.2, 0.28)
    np.testing.assert_allclose(gain, [0.5, -0.8, 1.28, -1.5, 1.1], rtol=1e-6)
    assert clipped.tolist() == [0, 1, 1, 0, 0]
    slope = jax.grad(lambda x: clipped_gain(x, jnp.array(advantage), 0.2, 0.28)[0].sum())(jnp.log(ratio))
    np.testing.assert_allclose(slope, [0.5, 0, 0, -1.5, 1.1], rtol=1e-6)


def test_the_loss_of_grpo_is_that_of_its_formula(tiny_config):
    config = tiny_config(training__objective="grpo", training__kl_weight=0.3, training__loss_chunk=16, **GROUPS)
    objective, family, draw = make_objective(config), family_of(config.model), np.random.default_rng(0)
    model = family.module()
    shapes = jax.eval_shape(lambda: family.init_params(jax.random.key(0)))
    own, other = (jax.tree.map(lambda x: jnp.float32(draw.normal(0, 0.3, x.shape)), shapes) for _ in range(2))
    batch = random_batch(objective.row_fields(), 4, draw)
    batch["rewards"] = np.float32([[1, 0, 0, 1], [1, 1, 1, 1], [0, 0, 0, 0], [0, 2, 0, 0]])

    def logs(params):
        flat = batch["tokens"].reshape(16, -1)
        logits = np.float64(jax.jit(model.apply)({"params": params}, flat))
        return np.take_along_axis(log_softmax(logits, -1), batch["targets"].reshape(16, -1, 1), -1)[..., 0]

    used = np.repeat([1, 0, 0, 1], 4)[:, None]
    advantage = (batch["rewards"] - batch["rewards"].mean(1, keepdims=True)).reshape(16, 1)
    weights = batch["weights"].reshape(16, -1) * used
    ratio = np.exp(logs(own) - batch["logprobs"].reshape(16, -1))
    gain = np.minimum(ratio * advantage, np.clip(ratio, 0.8, 1.28) * advantage)
    difference = logs(other) - logs(own)
    expected = np.sum(weights * (-gain + 0.3 * (np.exp(difference) - difference - 1)))
    reference = Companion(other, model)
    loss, figures = jax.jit(functools.partial(objective.loss, model))(own, batch, reference=reference)
    np.testing.assert_allclose(loss, expected, rtol=1e-4)
    assert float(objective.weight(batch)) == weights.sum()
    shown = objective.metrics({name: figure / weights.sum() for name, figure in figures.items()})
    assert float(shown["reward"]) == pytest.approx(0.5) and float(shown["used_texts"]) == pytest.approx(0.5)

    # Groups with equal rewards have no gradient, and a batch of such groups has no loss.
    def loss_of(params, batch):
        return objective.loss(model, params, batch, reference=reference)[0] / objective.weight(batch)

    equal = batch | {"rewards": np.ones((4, 4), np.float32)}
    value, gradient = jax.jit(jax.value_and_grad(loss_of))(own, equal)
    assert value == 0 and all(not leaf.any() for leaf in jax.tree.leaves(gradient))


def test_the_divergence_of_adapters_is_that_from_their_base(tiny_config):
    fields = dict(training__objective="grpo", training__kl_weight=0.3, model__lora_rank=2) | GROUPS
    config, draw = tiny_config(**fields, training__init_from="base"), np.random.default_rng(0)
    objective, family = make_objective(config), family_of(config.model)
    assert not objective.companions and objective.reads_own_base
    shapes = jax.eval_shape(lambda: family.init_params(jax.random.key(0)))
    params = jax.tree.map(lambda x: jnp.float32(draw.normal(0, 0.3, x.shape)), shapes)
    batch = random_batch(objective.row_fields(), 4, draw)
    _, own = jax.jit(functools.partial(objective.loss, family.module()))(params, batch)
    apart = make_objective(tiny_config(**fields, training__reference="other"))
    plain = Companion(lora.base_of(params), family_of(lora.without_adapters(config.model)).module())
    _, expected = jax.jit(functools.partial(apart.loss, family.module()))(params, batch, reference=plain)
    np.testing.assert_allclose(own["divergence"], expected["divergence"], rtol=1e-4)
    assert own["divergence"] > 0.1
    assert not make_objective(tiny_config(**fields | {"training__kl_weight": 0.0})).reads_own_base


@pytest.mark.parametrize("objective", ["grpo", "on_policy_distillation"])
def test_runs_continue_exactly(folder, tmp_path, objective):
    fields = dict(
        training__objective=objective,
        training__updates_per_rollout=2,
        training__teacher=str(folder / "base"),
        training__init_from=str(folder / "base"),
        mesh__data=2,
        mesh__fsdp=2,
        mesh__tensor=2,
    )
    config = config_of(folder, **fields)
    run = train_run(config, tmp_path / "run")
    rows = [row for row in read_metrics(tmp_path / "run" / "metrics.jsonl") if "train/loss" in row]
    assert all(0 <= row["train/reward"] <= 1 and row["train/written_tokens"] > 1 for row in rows)
    whole = losses_and_scores(tmp_path / "run")
    assert whole[1][-1].keys() >= {"validation/reward", "validation/written_tokens"}
    if objective == "on_policy_distillation":  # the student is still its teacher
        assert abs(rows[0]["train/loss"]) < 1e-6
    page, card = words_of_report(tmp_path / "run")
    assert "Loss by optimizer steps" in page and "nats per token Learning" not in page and "losses are in" not in page
    assert "Reward in training" in page and "The run that it started from is base" in page
    said = {"grpo": "does not say how good the model is", "on_policy_distillation": "Its teacher is base"}
    assert said[objective] in page and f'- "{objective}"' in card and '- type: "reward"' in card
    shutil.rmtree(tmp_path / "run" / "checkpoints" / "4")
    train_run(config, tmp_path / "run")
    assert losses_and_scores(tmp_path / "run") == whole
    # The texts of two steps are written by the parameters of the first.
    with jax.set_mesh(run.mesh):
        params = [run.plan.trainer.init().params, jax.tree.map(jnp.zeros_like, run.plan.trainer.init().params)]
        next_batch = command.make_batches(run, 2)
        stale = [jax.device_get(next_batch(params[step - 2], step)) for step in (2, 3)]
        fresh = jax.device_get(command.make_batches(run, 3)(params[1], 3))
        same = jax.device_get(command.make_batches(run, 3)(params[0], 3))
    assert not np.array_equal(stale[1]["logprobs"], fresh["logprobs"])
    np.testing.assert_array_equal(stale[1]["logprobs"], same["logprobs"])


@pytest.mark.parametrize("objective", ["grpo", "on_policy_distillation"])
def test_every_mesh_computes_the_same(tiny_config, tmp_path, objective):
    (tmp_path / "config.json").write_text(to_json(tiny_config()))
    fields = PLAIN | GROUPS | dict(training__objective=objective, training__kl_weight=0.1)
    fields |= dict(training__reference=str(tmp_path), training__teacher=str(tmp_path))
    one = step_of(tiny_config(**fields), 1)
    divided = dict(training__gradient_accumulation_steps=2, training__loss_chunk=32)
    mesh = dict(mesh__data=2, mesh__fsdp=2, mesh__tensor=2)
    assert_same(one, step_of(tiny_config(**fields, **divided, **mesh), 8))


@pytest.mark.parametrize(
    "fields, message",
    [
        (
            dict(data__source_length=0),
            r"data.source_length = 0: must be from 1 to data.sequence_length - 1 for .*'grpo'",
        ),
        (dict(data__source_length=6), r"data.source_length = 6: must be from 1"),
        (dict(data__source_length=1), r"data.source_length = 1: none of the 32 sources of .* fits"),
        (dict(mesh__context=2), r"mesh.context = 2: must be 1 for training.objective = 'grpo'"),
        (dict(training__updates_per_rollout=3), r"checkpoint.every = '2 steps': must be a multiple of .* = 3 steps"),
        (
            dict(training__kl_weight=0.1, training__init_from=""),
            r"training.init_from = '': .* needs the folder of a run",
        ),
    ],
)
def test_contradictory_settings_are_refused(folder, tmp_path, fields, message):
    with pytest.raises(ConfigError, match=message):
        command.open_run(config_of(folder, **dict(training__init_from=str(folder / "base")) | fields), tmp_path / "run")
