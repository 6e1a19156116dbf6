"""DPO learns preferences: its losses are TRL's, its figures NumPy's, and every mesh computes the same."""

import functools
import gc
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.traverse_util import flatten_dict, unflatten_dict
from one_step import PLAIN, assert_same, random_batch, step_of
from prepared_folders import write_prepared
from report_of_run import words_of_report
from scipy.special import log_softmax
from training_runs import losses_and_scores, train_opened, train_run

from gptjax import train as command
from gptjax.config import ConfigError, default, to_json
from gptjax.model import lora
from gptjax.model.families import family_of
from gptjax.model.int8 import Int8, widened
from gptjax.runs.start import check_start
from gptjax.settings import TrainingSettings
from gptjax.tokenizer import ByteTokenizer
from gptjax.training.columns import FILE
from gptjax.training.companions import Companion
from gptjax.training.objectives import make_objective
from gptjax.training.objectives.preference import preference_loss
from gptjax.training.records.writers import read_metrics

pytestmark = pytest.mark.slow

CHOSEN, CHOSEN_REFERENCE = np.array([-3.5, -20.25, -7.0, -1.0]), np.array([-4.0, -18.0, -7.0, -3.0])
REJECTED, REJECTED_REFERENCE = np.array([-5.0, -16.5, -9.25, -30.0]), np.array([-4.5, -19.0, -9.25, -2.0])


@pytest.mark.parametrize("beta", [0.1, 0.5])
@pytest.mark.parametrize("kind, smoothing", [("sigmoid", 0.0), ("sigmoid", 0.2), ("ipo", 0.0)])
def test_losses_are_those_of_trl(kind, smoothing, beta):
    """The formulas of TRL's DPOTrainer, written out in NumPy: `logits` are differences of log-ratios."""
    logits = (CHOSEN - REJECTED) - (CHOSEN_REFERENCE - REJECTED_REFERENCE)
    if kind == "sigmoid":
        expected = np.log1p(np.exp(-beta * logits)) * (1 - smoothing) + np.log1p(np.exp(beta * logits)) * smoothing
    else:
        expected = (logits - 1 / (2 * beta)) ** 2
    training = TrainingSettings(preference_loss=kind, preference_beta=beta, label_smoothing=smoothing)
    rewards = [beta * (own - other) for own, other in ((CHOSEN, CHOSEN_REFERENCE), (REJECTED, REJECTED_REFERENCE))]
    np.testing.assert_allclose(preference_loss(jnp.float32(rewards[0] - rewards[1]), training), expected, rtol=1e-5)


@pytest.mark.parametrize("kind, chunk", [("sigmoid", 0), ("ipo", 24)])
def test_figures_are_those_of_two_separate_models(tiny_config, kind, chunk):
    config = tiny_config(
        training__objective="preference",
        training__preference_loss=kind,
        training__preference_beta=0.3,
        training__loss_chunk=chunk,
    )
    objective, family, draw = make_objective(config), family_of(config.model), np.random.default_rng(0)
    model = family.module()
    apply = jax.jit(model.apply)
    shapes = jax.eval_shape(lambda: family.init_params(jax.random.key(0)))
    own, other = (jax.tree.map(lambda x: jnp.float32(draw.normal(0, 0.3, x.shape)), shapes) for _ in range(2))
    batch = random_batch(objective.row_fields(), 5, draw)
    for prefix in ("", "rejected_"):
        batch[f"{prefix}weights"][:, -1] = 1
        batch[f"{prefix}weights"][4] = 0  # a row that only fills up the batch

    def log_probabilities(params, prefix):
        logits = np.float64(apply({"params": params}, batch[f"{prefix}tokens"]))
        logs = np.take_along_axis(log_softmax(logits, -1), batch[f"{prefix}targets"][..., None], -1)[..., 0]
        weights = batch[f"{prefix}weights"]
        return (logs * weights).sum(1)[:4] / (weights.sum(1)[:4] if kind == "ipo" else 1)

    chosen, rejected = (0.3 * (log_probabilities(own, p) - log_probabilities(other, p)) for p in ("", "rejected_"))
    expected = {"chosen_reward": chosen, "rejected_reward": rejected, "margin": chosen - rejected}
    expected |= {
        "accuracy": chosen > rejected,
        "loss": preference_loss(jnp.float32(chosen - rejected), config.training),
    }
    _, figures = jax.jit(functools.partial(objective.loss, model))(own, batch, reference=Companion(other, model))
    assert float(objective.weight(batch)) == 4
    for name, values in expected.items():
        np.testing.assert_allclose(figures[name], values.sum(), rtol=2e-4, err_msg=name)


@pytest.mark.parametrize("base", [pytest.param("float32", marks=pytest.mark.exhaustive), "int8"])
def test_adapters_are_compared_with_their_own_base(tiny_config, base):
    """The figures are those of a separate reference, and there is no second model; but if more is trained, there is."""
    fields = {"training__objective": "preference", "model__lora_rank": 2, "training__init_from": "base"}
    config = tiny_config(**fields, model__lora_alpha=2.0, model__lora_base=base)
    objective, family = make_objective(config), family_of(config.model)
    assert not objective.companions and objective.reads_own_base
    if base == "int8":
        with pytest.raises(ConfigError, match=r"training.reference_once: with model.lora_base = 'int8'"):
            make_objective(tiny_config(**fields, model__lora_base=base, training__reference_once=True))
    draw = np.random.default_rng(0)
    start = jax.tree.map(lambda x: jnp.float32(draw.normal(0, 0.3, x.shape)), family.init_params(jax.random.key(0)))
    flat = flatten_dict(lora.completed(family.declarations, lora.base_of(start), jax.random.key(1)))
    # An adapter begins with zeros.
    flat |= {path: jnp.float32(draw.normal(0, 0.3, x.shape)) for path, x in flat.items() if "_lora" in path[-2:][0]}
    params, batch = unflatten_dict(flat), random_batch(objective.row_fields(), 3, draw)
    plain = family_of(lora.without_adapters(config.model)).module()
    is_int8 = {"is_leaf": lambda x: isinstance(x, Int8)}
    separate = jax.tree.map(lambda x: widened(x, jnp.float32), lora.base_of(params), **is_int8)
    apart = make_objective(tiny_config(**fields, training__reference="other"))
    assert apart.companions == {"reference": "training.reference"}

    def both(which, **companions):
        trained = {path: x for path, x in flat.items() if "_lora" in path[-2:][0]}

        def loss(trained):
            whole = unflatten_dict(flat | trained)
            return which.loss(family.module(), whole, batch, **companions)

        return jax.jit(jax.value_and_grad(loss, has_aux=True))(trained)

    own, expected = both(objective), both(apart, reference=Companion(separate, plain))
    assert abs(own[0][1]["margin"]) > 1e-3
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-4, atol=1e-6), own, expected)

    whole = make_objective(tiny_config(**fields, model__lora_also="embedding"))
    assert whole.companions == {"reference": "training.init_from"}


def test_both_answers_have_the_same_dropout(tiny_config):
    """The rewards of equal answers stay equal, and dropout changes them."""
    config = tiny_config(training__objective="preference", model__dropout=0.5)
    objective, family = make_objective(config), family_of(config.model)
    model, params = family.module(), family.init_params(jax.random.key(0))
    batch = random_batch(objective.row_fields(), 3, np.random.default_rng(0))
    batch |= {f"rejected_{name}": batch[name] for name in ("tokens", "targets", "weights")}
    loss = jax.jit(functools.partial(objective.loss, model))
    (_, plain), (_, dropped) = (
        loss(params, batch, keys, reference=Companion(params, model))
        for keys in (None, jax.random.split(jax.random.key(1), 3))
    )
    assert float(plain["chosen_reward"]) == pytest.approx(0, abs=1e-5) != float(dropped["chosen_reward"])
    assert float(dropped["margin"]) == pytest.approx(0, abs=1e-5)


def config_of(folder, **fields):
    config = default()
    config.model.update(num_layers=1, width=16, num_heads=2)
    config.data.update(path=str(folder / "data"), sequence_length=16)
    config.training.update(duration="6 steps", batch_size=16, objective="preference", init_from=str(folder / "base"))
    config.optimizer.learning_rate = 1e-2
    config.checkpoint.update(every="3 steps", keep_latest=5)
    config.evaluation.update(every="3 steps", tokens=0)
    config.logging.update(every="1 step", tensorboard=False)
    for field, value in fields.items():
        section, name = field.split("__")
        config[section][name] = value
    return config


def assert_same_with_a_reference_that_is_read_once(config, plain, folder):
    """A run that computes the reference's log-probabilities once has the losses and scores of the run `plain`,
    continues exactly, and has one copy of the parameters, also in its compiled step."""
    once = config_of(folder, **config, training__reference_once=True, logging__plots=False)
    run = train_run(once, folder / "once")
    found = losses_and_scores(folder / "once")
    for own, other in zip(found, losses_and_scores(folder / "run"), strict=True):
        jax.tree.map(lambda a, b: a == b or np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5), own, other)
    size, other_size = (each.plan.compiled_step[0].memory_analysis().argument_size_in_bytes for each in (run, plain))
    shards = [x.sharding.shard_shape(x.shape) for x in jax.tree.leaves(run.plan.abstract_state.params)]
    rows_on_device = 16 // 4
    assert other_size - size == 4 * sum(map(np.prod, shards)) - 8 * rows_on_device

    shutil.rmtree(folder / "once" / "checkpoints" / "6")
    stored = (folder / "once" / FILE).read_bytes()
    (folder / "once" / FILE).write_bytes(stored[:-1] + bytes([stored[-1] ^ 1]))
    run = command.open_run(once, folder / "once")
    gc.collect()
    before = sum(array.nbytes for array in jax.live_arrays())
    with jax.set_mesh(run.mesh), command.open_checkpoints(run) as checkpoints:
        again = run.accompanied(checkpoints)
    gc.collect()
    assert not again.companions.models and sum(array.nbytes for array in jax.live_arrays()) == before
    assert (folder / "once" / FILE).read_bytes() == stored
    train_opened(run)
    assert losses_and_scores(folder / "once") == found


def test_a_model_learns_what_is_preferred_and_continues_exactly(tmp_path):
    eos, draw = ByteTokenizer().eos_id, np.random.default_rng(0)
    sides = []
    for _ in range(40):  # the chosen answer repeats the prompt's letter
        letter, other = draw.choice(np.arange(100, 126), 2, replace=False)
        sides += [[letter] * 3, [letter] * 2, [letter] * 3, [other] * 2]
    documents = [[*map(int, side), eos] for side in sides]
    write_prepared(tmp_path / "data", train=documents, validation=documents[:16], form="preferences")
    write_prepared(tmp_path / "pairs", train=documents, form="pairs")
    base = config_of(
        tmp_path,
        data__path=str(tmp_path / "pairs"),
        training__objective="completion",
        training__init_from="",
        training__duration="2 steps",
        evaluation__every="",
        logging__plots=False,
    )
    train_run(base, tmp_path / "base")

    mesh = dict(mesh__data=2, mesh__fsdp=2, mesh__tensor=2, training__gradient_accumulation_steps=2)
    config = config_of(tmp_path, **mesh)
    run = train_run(config, tmp_path / "run")
    rows = [row for row in read_metrics(tmp_path / "run" / "metrics.jsonl") if "train/loss" in row]
    # A model that is still the reference has no margin.
    assert rows[0]["train/loss"] == pytest.approx(np.log(2), abs=1e-5) and abs(rows[0]["train/margin"]) < 1e-5
    assert rows[-1]["train/margin"] > 0.02 and rows[-1]["train/loss"] < rows[0]["train/loss"] - 0.01
    assert rows[-1]["train/margin"] == pytest.approx(
        rows[-1]["train/chosen_reward"] - rows[-1]["train/rejected_reward"], abs=1e-5
    )
    assert (tmp_path / "run" / "plots" / "preferences.png").stat().st_size > 10_000
    whole = losses_and_scores(tmp_path / "run")
    page, card = words_of_report(tmp_path / "run")
    assert "Rewards of the answers" in page and "nats per preference" in page and "Adapters" not in page
    assert '- "preference"' in card and "reference" in card
    last = whole[1][-1]
    assert last["validation/margin"] > 0.05 and last["validation/accuracy"] > 0.5
    shutil.rmtree(tmp_path / "run" / "checkpoints" / "6")
    train_run(config, tmp_path / "run")
    assert losses_and_scores(tmp_path / "run") == whole

    assert_same_with_a_reference_that_is_read_once(mesh, run, tmp_path)

    lora_fields = dict(model__lora_rank=2, model__lora_alpha=2.0, training__duration="1 step")
    own = train_run(config_of(tmp_path, **lora_fields), tmp_path / "lora")
    page, card = words_of_report(tmp_path / "lora")
    assert "Adapters of rank 2 (LoRA) learned; the other parameters stayed as they were" in page and '- "lora"' in card
    row, letters = own.data.batch(0, np.array([0])), ByteTokenizer().decode
    shown = own.plan.trainer.objective.shown_row(own.data, own.tokenizer).plain.splitlines()
    for line, prefix in zip(shown, ("", "rejected_")):
        targets, is_answer = row[f"{prefix}targets"][0], row[f"{prefix}weights"][0] > 0
        assert line.startswith(letters(targets[:3].tolist()))
        assert f"⟦{letters(targets[is_answer][:2].tolist())}" in line
    assert not own.companions.models and not own.plan.trainer.companions
    further = config_of(tmp_path, **lora_fields, training__init_from=str(tmp_path / "lora"))
    run = command.open_run(further, tmp_path / "further")
    with jax.set_mesh(run.mesh), command.open_checkpoints(run) as checkpoints:
        with pytest.raises(ConfigError, match=r"training.reference = '': the run .*lora of training.init_from has ada"):
            check_start(run.plan, run.data, checkpoints)


@pytest.mark.parametrize(
    "mesh",
    [
        dict(data=2, fsdp=2, tensor=2),
        pytest.param(dict(context=2, pipeline=2), marks=pytest.mark.exhaustive),
    ],
    ids=str,
)
def test_every_mesh_computes_the_same(tiny_config, tmp_path, mesh):
    (tmp_path / "config.json").write_text(to_json(tiny_config()))
    fields = PLAIN | dict(training__objective="preference", training__reference=str(tmp_path))
    one = step_of(tiny_config(**fields), 1)
    divided = dict(training__gradient_accumulation_steps=2, training__loss_chunk=16)
    mesh = {f"mesh__{axis}": size for axis, size in (dict(data=1) | mesh).items()}
    assert_same(one, step_of(tiny_config(**fields, **divided, **mesh), int(np.prod(list(mesh.values())))))
