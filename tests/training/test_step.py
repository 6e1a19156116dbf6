"""A step does not depend on micro-batches, padding or the mesh; non-finite steps and outliers are dropped."""

import functools
import os
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gptjax.data.facts import DataFacts
from gptjax.parallel.compilation import training_options
from gptjax.parallel.distributed import local_rows, put_batch
from gptjax.planning import plan
from gptjax.training.metrics import MONITOR_STEPS
from gptjax.training.step import update_average

pytestmark = pytest.mark.slow

STEPS = 3
EIGHT = 8  # devices


@pytest.fixture
def tiny_config(tiny_config):
    """With one layer, unless a test sets another number."""
    return lambda **fields: tiny_config(**{"model__num_layers": 1} | fields)


def random_batch(config, seed=0):
    """Rows with very different numbers of supervised tokens; one row has none."""
    rng = np.random.default_rng(seed)
    shape = (config.training.batch_size, config.data.sequence_length)
    lengths = rng.integers(1, shape[1] + 1, shape[0])
    lengths[3] = 0
    if config.training.objective == "seq2seq":
        return random_pairs(config, rng, lengths)
    return {
        "tokens": rng.integers(0, config.model.vocab_size, shape).astype(np.int32),
        "targets": rng.integers(0, config.model.vocab_size, shape).astype(np.int32),
        "weights": (np.arange(shape[1]) < lengths[:, None]).astype(np.float32),
    }


def random_pairs(config, rng, lengths):
    """Two pairs per row, with targets cut at half of the row's length, and padding in sources and targets."""
    rows, (S, T) = len(lengths), (config.data.source_length, config.data.sequence_length)
    places = {"": (np.arange(T), lengths[:, None]), "source_": (np.arange(S), rng.integers(2, S + 1, (rows, 1)))}
    batch = {name: rng.integers(0, config.model.vocab_size, (rows, T)) for name in ("tokens", "targets")}
    batch["source"] = rng.integers(0, config.model.source_vocab_size, (rows, S))
    for prefix, (place, length) in places.items():
        second = place >= length // 2
        batch[f"{prefix}segments"] = np.where(place < length, 1 + second, 0)
        batch[f"{prefix}positions"] = np.where(place < length, place - second * (length // 2), 0)
    ints = {name: array.astype(np.int32) for name, array in batch.items()}
    return ints | {"weights": (batch["segments"] > 0).astype(np.float32)}


def build(config, num_devices=1):
    return plan(config, DataFacts(config.model.vocab_size), jax.devices()[:num_devices]).trainer


def place(trainer, batch):
    training = trainer.config.training
    rows = local_rows(trainer.mesh, training.batch_size, training.gradient_accumulation_steps)
    local = {name: array[rows] for name, array in batch.items()}
    return put_batch(trainer.mesh, local, rows, training.batch_size, training.gradient_accumulation_steps)


@functools.cache
def compiled_step(config, num_devices=1):
    trainer = build(config, num_devices)
    with jax.set_mesh(trainer.mesh):
        return trainer, trainer.compile_train_step(trainer.abstract_batch())


def run(config, num_devices=1, steps=STEPS, batches=None):
    """(state, metrics of every step) after a few steps."""
    trainer, compiled = compiled_step(config, num_devices)
    with jax.set_mesh(trainer.mesh):
        state = trainer.init()
        history = []
        for step in range(steps):
            batch = random_batch(config, step) if batches is None else batches[step]
            state, metrics = compiled(state, place(trainer, batch))
            history.append(jax.device_get(metrics))
        return jax.device_get(state), history


@functools.cache
def one_device_run(config):
    return run(config)


def assert_same(run_a, run_b, tolerance=2e-5):
    (state_a, history_a), (state_b, history_b) = run_a, run_b
    for a, b in zip(history_a, history_b):
        np.testing.assert_allclose(a["train/loss"], b["train/loss"], rtol=tolerance)
        np.testing.assert_allclose(a["train/gradient_norm"], b["train/gradient_norm"], rtol=tolerance)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=tolerance), state_a.params, state_b.params)


SGD = dict(optimizer__name="sgd", optimizer__learning_rate=0.5)  # an update that equals the gradient


@pytest.mark.parametrize("accumulation", [pytest.param(4, marks=pytest.mark.exhaustive), 16])
def test_micro_batches_of_unequal_weight_equal_the_whole_batch(tiny_config, accumulation):
    whole = one_device_run(tiny_config(**SGD))
    parts = run(tiny_config(training__gradient_accumulation_steps=accumulation, **SGD))
    assert_same(whole, parts)


@pytest.mark.parametrize(
    "optimizer, mesh",
    [
        pytest.param("adamw", dict(mesh__data=8), marks=pytest.mark.exhaustive),
        ("adamw", dict(mesh__data=1, mesh__fsdp=8)),
        pytest.param(
            *("adamw", dict(mesh__data=1, mesh__fsdp=4, mesh__tensor=2, training__gradient_accumulation_steps=2)),
            marks=pytest.mark.exhaustive,
        ),
        pytest.param("adamw", dict(mesh__data=4, mesh__tensor=2), marks=pytest.mark.exhaustive),
        pytest.param(
            "muon",
            dict(
                mesh__data=2,
                mesh__fsdp=2,
                mesh__tensor=2,
                model__layers="scan",
                training__loss_chunk=8,
            ),
            marks=pytest.mark.exhaustive,
        ),
    ],
    ids=str,
)
def test_every_mesh_is_the_same_model(tiny_config, optimizer, mesh):
    config = dict(optimizer__name=optimizer, model__num_layers=2 if "model__layers" in mesh else 1)
    assert_same(one_device_run(tiny_config(**config)), run(tiny_config(**config, **mesh), EIGHT))


def test_options_with_parameters_or_effects_over_heads_are_the_same_model_on_a_mesh(tiny_config):
    config = dict(
        model__norm_placement="sandwich",
        model__qk_norm=True,
        model__qk_norm_over="projection",
        model__attention_sinks=True,
        model__attention_softcap=2.0,
        model__position="alibi",
        model__bias="qkv+output",
        model__attention="xla",
        **SGD,
    )
    assert_same(
        run(tiny_config(**config)), run(tiny_config(mesh__data=2, mesh__fsdp=2, mesh__tensor=2, **config), EIGHT)
    )


ENCODER_DECODER = dict(
    model__family="encoder_decoder",
    model__num_encoder_layers=1,
    model__shared_embeddings=False,
    model__source_vocab_size=40,
    training__objective="seq2seq",
    training__label_smoothing=0.1,
    data__source_length=12,
    **SGD,
)
OF_TODAY = dict(model__norm_placement="sandwich", model__qk_norm=True, model__dropout=0.1)
OF_2017 = dict(
    model__norm="layernorm",
    model__norm_placement="post_residual",
    model__bias="all",
    model__position="learned",
    model__tied_embeddings=False,
    model__feedforward="relu",
)


@pytest.mark.parametrize(
    "options, mesh",
    [
        pytest.param(
            OF_TODAY,
            dict(mesh__data=2, mesh__fsdp=2, mesh__tensor=2, training__gradient_accumulation_steps=2),
            marks=pytest.mark.exhaustive,
        ),
        (
            OF_2017,
            dict(
                mesh__data=1,
                mesh__fsdp=4,
                mesh__tensor=2,
                training__loss_chunk=8,
            ),
        ),
    ],
    ids=["of_today", "of_2017"],
)
def test_an_encoder_decoder_is_the_same_model_on_a_mesh(tiny_config, options, mesh):
    one = run(tiny_config(**ENCODER_DECODER, **options))
    assert_same(one, run(tiny_config(**ENCODER_DECODER, **options, **mesh), EIGHT))


def test_a_mesh_is_the_same_model_in_bfloat16(tiny_config):
    config = dict(model__dtype="bfloat16", **SGD)
    one = run(tiny_config(**config))
    assert_same(one, run(tiny_config(mesh__data=2, mesh__fsdp=2, mesh__tensor=2, **config), EIGHT), tolerance=5e-3)
    whole = one_device_run(tiny_config(**config | dict(model__dtype="float32")))
    assert_same(one, whole, tolerance=5e-2)


def flops(config, num_devices):
    return compiled_step(config, num_devices)[1].cost_analysis()["flops"]


@pytest.mark.parametrize(
    "axis, accumulation",
    [
        ("data", 1),
        ("fsdp", 2),
        pytest.param("data", 2, marks=pytest.mark.exhaustive),
        pytest.param("fsdp", 1, marks=pytest.mark.exhaustive),
    ],
)
def test_eight_devices_share_the_work(tiny_config, axis, accumulation):
    """Silent replication gives the correct loss at an eighth of the speed, so the FLOPs are compared."""
    shape = dict(
        model__width=64,
        data__sequence_length=64,
        training__gradient_accumulation_steps=accumulation,
        optimizer__name="sgd",
        training__batch_size=32,
    )
    mesh = dict(mesh__data=1) | {f"mesh__{axis}": 8}
    one = flops(tiny_config(**shape), 1)
    eight = flops(tiny_config(**shape, **mesh), EIGHT)
    assert eight < one / 8 * 1.5


def collectives(compiled):
    names = ("all-reduce", "all-gather", "reduce-scatter", "all-to-all", "collective-permute")
    text = compiled.as_text()
    return {name: len(re.findall(rf"\b{name}(?:-start)?\(", text)) for name in names}


def test_each_kind_of_parallelism_has_its_collectives(tiny_config):
    data = collectives(compiled_step(tiny_config(mesh__data=8), EIGHT)[1])
    assert data["all-reduce"] >= 1 and data["all-gather"] == data["all-to-all"] == 0
    fsdp = collectives(compiled_step(tiny_config(mesh__data=1, mesh__fsdp=8), EIGHT)[1])
    assert fsdp["all-gather"] >= 1
    accumulated = tiny_config(mesh__data=8, training__gradient_accumulation_steps=2)
    assert collectives(compiled_step(accumulated, EIGHT)[1])["all-gather"] == 0


def collectives_in_loops(compiled):
    text = compiled.as_text()
    bodies = set(re.findall(r"body=%([\w.\-]+)", text))
    computations = re.split(r"\n(?=%|ENTRY)", text)
    loops = [c for c in computations if any(c.startswith(f"%{body} ") for body in bodies)]
    return sum(len(re.findall(r"(?:all-reduce|all-gather|reduce-scatter)(?:-start)?\(", loop)) for loop in loops)


def test_a_chunked_loss_gathers_the_head_once_instead_of_once_per_chunk(tiny_config):
    config = tiny_config(mesh__data=2, mesh__fsdp=4, training__loss_chunk=4)
    _, compiled = compiled_step(config, EIGHT)
    assert "while" in compiled.as_text() and collectives_in_loops(compiled) == 0


def test_fsdp_splits_parameters_and_optimizer_state_into_eight_parts(tiny_config):
    trainer, _ = compiled_step(tiny_config(mesh__data=1, mesh__fsdp=8), EIGHT)
    state = trainer.abstract_state
    query = state.params["layers"]["attention"]["query"]
    assert query.sharding.shard_shape(query.shape)[1] == query.shape[1] // 8
    sizes = [(leaf.size, np.prod(leaf.sharding.shard_shape(leaf.shape))) for leaf in jax.tree.leaves(state)]
    whole, per_device = (sum(column) for column in zip(*sizes))
    assert per_device < whole / 8 * 1.2


def test_the_machine_code_that_users_get_takes_the_same_steps(tiny_config, monkeypatch):
    """All other tests compile with little effort (conftest.py)."""
    config = tiny_config(**SGD)
    of_users = dict(xla_backend_optimization_level=3, xla_llvm_disable_expensive_passes=False)
    if "xla_cpu_use_fusion_emitters" in os.environ.get("XLA_FLAGS", ""):  # older versions of jaxlib (conftest.py)
        of_users |= dict(xla_cpu_use_fusion_emitters=True)
    expected = one_device_run(config)
    monkeypatch.setattr(
        "gptjax.training.trainer.training_options", lambda *of: (training_options(*of) or {}) | of_users
    )
    monkeypatch.setitem(globals(), "compiled_step", compiled_step.__wrapped__)
    assert_same(expected, run(config))


def test_the_state_is_donated(tiny_config):
    config = tiny_config()
    trainer = build(config)
    with jax.set_mesh(trainer.mesh):
        state = trainer.init()
        compiled = trainer.compile_train_step(trainer.abstract_batch())
        compiled(state, place(trainer, random_batch(config)))
    assert all(leaf.is_deleted() for leaf in jax.tree.leaves(state.params))


def poisoned(config):
    batches = [random_batch(config, step) for step in range(STEPS)]
    batches[1]["weights"] = np.full_like(batches[1]["weights"], np.inf)
    return batches


def test_a_non_finite_step_is_skipped_on_request(tiny_config):
    config = tiny_config(training__on_nonfinite="skip", training__ema_decay=0.9)
    batches = poisoned(config)
    state, history = run(config, batches=batches)
    assert [m["train/skipped"] for m in history] == [0, 1, 0]
    assert state.step == STEPS
    counters = [leaf for leaf in jax.tree.leaves(state.opt_state) if leaf.dtype == np.int32]
    assert counters and all(counter == STEPS for counter in counters)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(state))


def test_a_skipped_step_changes_no_moment_in_any_format(tiny_config):
    """The codes of 8-bit moments are integers like counters, but must not advance with them."""
    few_bits = dict(optimizer__first_moment_dtype="int8", optimizer__second_moment_dtype="int8")
    config = tiny_config(training__on_nonfinite="skip", **few_bits)
    before, _ = run(config, steps=1, batches=poisoned(config))
    after, _ = run(config, steps=2, batches=poisoned(config))
    arrays = [(a, b) for a, b in zip(jax.tree.leaves(before.opt_state), jax.tree.leaves(after.opt_state)) if a.ndim]
    assert sum(a.dtype == np.int8 for a, _ in arrays) > 2
    for a, b in arrays:
        np.testing.assert_array_equal(a, b)


def test_optimizer_state_in_host_memory_changes_no_value(tiny_config):
    mesh = dict(mesh__data=2, mesh__fsdp=2, training__on_nonfinite="skip")
    config = tiny_config(optimizer__memory="host", **mesh)
    trainer, _ = compiled_step(config, 4)
    kinds = {(bool(x.ndim), x.sharding.memory_kind) for x in jax.tree.leaves(trainer.abstract_state.opt_state)}
    assert (True, "pinned_host") in kinds and (True, "device") not in kinds and (False, "pinned_host") not in kinds
    (state, history), (on_device, expected) = run(config, 4), run(tiny_config(**mesh), 4)
    jax.tree.map(np.testing.assert_array_equal, state, on_device)
    jax.tree.map(np.testing.assert_array_equal, history, expected)


def test_otherwise_a_non_finite_step_makes_parameters_non_finite(tiny_config):
    config = tiny_config()
    state, history = run(config, batches=poisoned(config))
    assert not np.isfinite(history[1]["train/loss"])
    assert not np.isfinite(state.params["embedding"]).all()


def test_an_outlier_is_skipped_on_request(tiny_config):
    config = tiny_config(training__outlier_zscore=6.0, optimizer__learning_rate=1e-5)
    steps = MONITOR_STEPS + 5
    batches = [random_batch(config, step) for step in range(steps)]
    odd = dict(batches[-1], targets=np.zeros_like(batches[-1]["targets"]), tokens=np.zeros_like(batches[-1]["tokens"]))
    batches[-1] = odd
    _, history = run(config, steps=steps, batches=batches)
    assert history[-1]["train/skipped"] == 1
    assert sum(m["train/skipped"] for m in history[:-1]) == 0


@pytest.mark.parametrize("decay, poison", [(0.999, False), (0.9, True)])
def test_the_moving_average_is_the_weighted_mean_of_the_parameters_after_each_step(tiny_config, decay, poison):
    config = tiny_config(training__ema_decay=decay, training__on_nonfinite="skip")
    trainer, compiled = compiled_step(config)
    batches = poisoned(config) if poison else [random_batch(config, step) for step in range(STEPS)]
    history = []
    with jax.set_mesh(trainer.mesh):
        state = trainer.init()
        for batch in batches:
            state, _ = compiled(state, place(trainer, batch))
            history.append(jax.device_get(state.params))
    weights = decay ** np.arange(STEPS - 1.0, -1, -1)
    mean = jax.tree.map(lambda *leaves: sum(w * leaf for w, leaf in zip(weights, leaves)) / weights.sum(), *history)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6), mean, jax.device_get(state.ema))


def test_the_moving_average_is_correct_after_a_million_steps():
    decay, average = 0.9999, jnp.float32(5.0)
    assert update_average(average, jnp.float32(3.0), 1, decay) == pytest.approx(3.0, abs=1e-6)
    assert update_average(average, jnp.float32(3.0), 10**6, decay) == pytest.approx(5.0 - 2 * 1e-4, abs=1e-6)
    for steps in (2, 100, 20_000):
        weight = 1 / sum(decay**i for i in range(steps))
        assert update_average(average, jnp.float32(3.0), steps, decay) == pytest.approx(5.0 - 2 * weight, abs=1e-6)


DROPOUT = dict(model__dropout=0.3, model__attention_dropout=0.3)


def test_dropout_differs_between_steps_and_repeats_with_the_seed(tiny_config):
    config = tiny_config(**DROPOUT, optimizer__learning_rate=1e-12)
    batches = [random_batch(config)] * STEPS
    losses = [m["train/loss"] for m in run(config, batches=batches)[1]]
    assert len(set(map(float, losses))) == STEPS
    assert losses == [m["train/loss"] for m in run(config, batches=batches)[1]]


@pytest.mark.parametrize(
    "fields",
    [
        pytest.param(dict(training__gradient_accumulation_steps=4), marks=pytest.mark.exhaustive),
        dict(model__layers="scan", model__remat="full"),
        pytest.param(dict(model__attention="reference", model__remat="dots"), marks=pytest.mark.exhaustive),
        pytest.param(  # tests/parallel/test_same_model.py always has dropout on a mesh
            dict(mesh__data=2, mesh__fsdp=2, mesh__tensor=2, training__gradient_accumulation_steps=2),
            marks=pytest.mark.exhaustive,
        ),
    ],
    ids=lambda fields: ",".join(f"{field.partition('__')[2]}={value}" for field, value in fields.items()),
)
def test_dropout_does_not_depend_on_how_a_step_is_computed(tiny_config, fields):
    config = SGD | DROPOUT | dict(model__num_layers=2)
    whole = one_device_run(tiny_config(**config))
    assert_same(whole, run(tiny_config(**config, **fields), EIGHT if "mesh__data" in fields else 1))


def test_the_loss_of_a_batch_without_supervised_tokens_is_nan(tiny_config):
    config = tiny_config()
    empty = random_batch(config)
    empty["weights"] = np.zeros_like(empty["weights"])
    metrics = run(config, batches=[empty], steps=1)[1][0]
    assert metrics["train/supervised_tokens"] == 0 and not np.isfinite(metrics["train/loss"])


def test_the_norm_excludes_frozen_parameters(tiny_config):
    frozen = tiny_config(optimizer__rules=((r"layers/.*", "freeze", True),), training__ema_decay=0.5)
    (state, norms), (initial, _) = run(frozen, steps=1), run(frozen, steps=0)
    _, all_norms = one_device_run(tiny_config())
    assert norms[0]["train/gradient_norm"] < all_norms[0]["train/gradient_norm"]
    jax.tree.map(np.testing.assert_array_equal, state.params["layers"], initial.params["layers"])
    assert np.any(state.params["embedding"] != initial.params["embedding"])
    assert not jax.tree.leaves(state.ema["layers"])  # they are their own average
    assert jax.tree.structure(state.best_params) == jax.tree.structure(state.params)
    jax.tree.map(np.testing.assert_array_equal, state.best_params["layers"], initial.params["layers"])
