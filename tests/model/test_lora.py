"""Adapters: new ones change nothing, merged ones compute the same function, only they are trained, at any rank that
suffices they can learn what full fine-tuning learns, and every mesh trains the same ones."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.traverse_util import flatten_dict, unflatten_dict
from one_step import PLAIN, planned, random_batch

from gptjax.config import ConfigError
from gptjax.model import lora
from gptjax.model.families import family_of, merged_model
from gptjax.model.int8 import Int8, widened
from gptjax.model.parameters import count_parameters
from gptjax.model.tree import leaves_by_path
from gptjax.parallel.distributed import local_rows, put_batch

FAMILIES = {
    "decoder": {},
    "encoder_decoder": dict(model__family="encoder_decoder", training__objective="seq2seq"),
    "classifier": dict(
        model__family="classifier", model__body="decoder", model__num_classes=3, training__objective="classification"
    ),
    "experts": dict(model__num_experts=2, model__shared_experts=1),
    "routed": dict(model__num_experts=2),
}
ROUTED = dict(model__lora_target=".*/(query|up|gate|down)")  # with the experts' matrices


@pytest.fixture
def config_of(tiny_config):
    return lambda family="decoder", **fields: tiny_config(**FAMILIES[family] | fields)


def random_base(config, seed=0):
    draw = np.random.default_rng(seed)
    declared = lora.unadapted(family_of(config.model).declarations)
    return jax.tree.map(lambda p: draw.normal(0, 0.3, p.shape).astype(np.float32), declared)


def with_random_adapters(params):
    draw = np.random.default_rng(1)
    flat = {
        path: x + 0.2 * draw.normal(size=x.shape).astype(np.float32) if path[-2].endswith("_lora") else x
        for path, x in ((path if len(path) > 1 else ("", *path), x) for path, x in flatten_dict(params).items())
    }
    return unflatten_dict({path if path[0] else path[1:]: x for path, x in flat.items()})


def loss_function(config):
    objective = planned(config, 1).trainer.objective
    batch = random_batch(objective.row_fields(), 4, np.random.default_rng(1))
    module = family_of(config.model).module()
    return jax.jit(lambda params: objective.loss(module, params, batch)[0])


class OneMatrix(nn.Module):
    config: Any
    size: int

    @nn.compact
    def __call__(self, x_BTI, keys_B=None):
        sizes, zeros = {"embed": self.size}, nn.initializers.zeros
        return lora.linear(
            self, "query", x_BTI, sizes, {"heads": self.size}, zeros, has_bias=False, dropout_keys_B=keys_B
        )


def test_the_lengths_of_dora_are_constants_for_the_gradient(tiny_config):
    draw, size, rank = np.random.default_rng(0), 4, 2
    config = tiny_config(model__lora_rank=rank, model__lora_dora=True).model
    x, w, a, b, m = (
        jnp.float32(draw.normal(size=s)) for s in ((1, 3, size), (size, size), (size, rank), (rank, size), (size,))
    )
    scale = lora.scale_of(config)

    def formula(a, b):
        whole = w + scale * a @ b
        return m / jax.lax.stop_gradient(jnp.linalg.norm(whole, axis=0)) * (x @ whole)

    def adapted(a, b):
        params = {"query": w, "query_lora": {"a": a, "b": b, "magnitude": m}}
        return OneMatrix(config, size).apply({"params": params}, x)

    def gradients(function):
        return jax.value_and_grad(lambda a, b: (function(a, b) ** 2).sum(), (0, 1))(a, b)

    made, wanted = gradients(adapted), gradients(formula)
    jax.tree.map(lambda one, other: np.testing.assert_allclose(one, other, rtol=2e-4), made, wanted)


def test_dropout_acts_on_the_change_of_a_column_s_length_only(tiny_config):
    """As in PEFT: with twice the length and no adapter, x W + (2 - 1) · dropout(x) W."""
    size = 8
    config = tiny_config(model__lora_rank=1, model__lora_dora=True, model__lora_dropout=0.5).model
    x = jnp.arange(1.0, 1 + 2 * size).reshape(1, 2, size)
    adapter = {"a": jnp.ones((size, 1)), "b": jnp.zeros((1, size)), "magnitude": jnp.full(size, 2.0)}
    params = {"query": jnp.eye(size), "query_lora": adapter}
    added = OneMatrix(config, size).apply({"params": params}, x, jax.random.split(jax.random.key(0), 1)) - x
    dropped = np.asarray(added == 0)
    assert dropped.any() and not dropped.all()
    np.testing.assert_allclose(added, jnp.where(dropped, 0, 2 * x), rtol=1e-6)


@pytest.mark.parametrize(
    "family, fields",
    [
        ("decoder", dict(model__lora_dora=True, model__bias="all", model__num_layers=1)),
        ("classifier", dict(model__lora_rslora=True, model__num_layers=1)),
        ("routed", ROUTED | dict(model__num_layers=1)),
        pytest.param("routed", ROUTED | dict(model__expert_products="gathered"), marks=pytest.mark.exhaustive),
        pytest.param("routed", ROUTED | dict(model__lora_base="int8"), marks=pytest.mark.exhaustive),
        pytest.param("encoder_decoder", {}, marks=pytest.mark.exhaustive),
        pytest.param("experts", {}, marks=pytest.mark.exhaustive),
        pytest.param("decoder", dict(model__lora_base="bfloat16"), marks=pytest.mark.exhaustive),
        pytest.param("decoder", dict(model__layers="scan"), marks=pytest.mark.exhaustive),
    ],
)
def test_new_adapters_change_nothing_and_merged_ones_compute_the_same(config_of, family, fields):
    config = config_of(family, model__lora_rank=2, **fields)
    plain = {name: value for name, value in fields.items() if "lora" not in name}
    of_plain, of_adapted = loss_function(config_of(family, **plain)), loss_function(config)
    base = random_base(config)
    fresh = lora.completed(family_of(config.model).declarations, base, jax.random.key(0))
    if config.model.lora_base == "float32":
        jax.tree.map(np.testing.assert_array_equal, lora.base_of(fresh), base)
    exact, same = (1e-6, 1e-4) if config.model.lora_base == "float32" else (2e-2, 2e-2)
    np.testing.assert_allclose(of_adapted(fresh), of_plain(base), rtol=exact)
    random = with_random_adapters(fresh)
    assert abs(of_adapted(random) - of_plain(base)) > 1e-3
    params, model = merged_model(config.model, random)
    assert model == config_of(family, **plain).model and jax.tree.structure(params) == jax.tree.structure(base)
    np.testing.assert_allclose(of_plain(params), of_adapted(random), rtol=same)


def steps_of(config, devices, params, steps=3):
    """(losses, last state) of some steps from these parameters, of a base or with adapters."""
    made = planned(config, devices)
    trainer, training = made.trainer, config.training
    rows = local_rows(made.mesh, training.batch_size, training.gradient_accumulation_steps)
    losses = []
    with jax.set_mesh(made.mesh):
        compiled, state = trainer.compile_train_step(made.abstract_batch), trainer.init(params)
        for seed in range(steps):
            batch = random_batch(trainer.objective.row_fields(), training.batch_size, np.random.default_rng(seed))
            placed = put_batch(made.mesh, batch, rows, training.batch_size, training.gradient_accumulation_steps)
            state, metrics = compiled(state, placed)
            losses.append(float(metrics["train/loss"]))
    return losses, jax.device_get(state)


SMALL_STEPS = PLAIN | dict(optimizer__learning_rate=0.3, model__num_layers=1)


def test_full_rank_adapters_with_orthogonal_a_take_the_steps_of_full_fine_tuning(config_of):
    """W + A B with a fixed orthogonal A [16, 16] is W in other coordinates, which gradient descent does not see."""
    target = "layers/(attention/(query|key|value)|feedforward/(gate|up))"
    frozen = ((".*", "freeze", True), (target, "freeze", False))
    fields = dict(model__lora_rank=16, model__lora_alpha=16.0, model__lora_target=target)
    config = config_of(optimizer__rules=((".*/a", "freeze", True),), **fields, **SMALL_STEPS)
    base = random_base(config)
    full_losses, _ = steps_of(config_of(optimizer__rules=frozen, **SMALL_STEPS), 1, base)
    params = lora.completed(family_of(config.model).declarations, base, jax.random.key(0))
    orthogonal = np.linalg.qr(np.random.default_rng(0).normal(size=(16, 16)))[0].astype(np.float32)
    flat = {
        path: np.broadcast_to(orthogonal, x.shape) if path[-1] == "a" else x for path, x in flatten_dict(params).items()
    }
    losses, _ = steps_of(config, 1, unflatten_dict(flat))
    np.testing.assert_allclose(losses, full_losses, rtol=1e-5)
    assert full_losses[-1] != pytest.approx(full_losses[0], rel=1e-3)


SOME = dict(model__lora_target=".*/(query|down)", model__num_layers=1)
ONE_ROUTED = FAMILIES["routed"] | ROUTED | dict(model__num_layers=1, model__lora_dropout=0.0)
DRAWN = dict(model__lora_rank=2, model__lora_dropout=0.2, optimizer__learning_rate=0.01)


@pytest.mark.parametrize(
    "fields, mesh",
    [
        (SOME | dict(model__lora_base="int8", model__lora_dora=True), dict(mesh__fsdp=2, mesh__tensor=2)),
        pytest.param(
            dict(model__lora_base="int8", model__lora_dora=True, training__gradient_accumulation_steps=2),
            dict(mesh__data=2, mesh__fsdp=2, mesh__tensor=2),
            marks=pytest.mark.exhaustive,
        ),
        pytest.param(
            dict(model__lora_base="bfloat16", model__layers="scan"),
            dict(mesh__pipeline=2, mesh__data=2),
            marks=pytest.mark.exhaustive,
        ),
        pytest.param(dict(model__layers="unroll"), dict(mesh__data=4, mesh__zero1=True), marks=pytest.mark.exhaustive),
        pytest.param(
            FAMILIES["classifier"] | FAMILIES["experts"],
            dict(mesh__fsdp=2, mesh__expert=2),
            marks=pytest.mark.exhaustive,
        ),
        pytest.param(ONE_ROUTED, dict(mesh__fsdp=2, mesh__expert=2), marks=pytest.mark.exhaustive),
        pytest.param(
            ONE_ROUTED | dict(model__expert_capacity=1.0),
            dict(mesh__data=2, mesh__expert=2, mesh__expert_exchange="all_to_all"),
            marks=pytest.mark.exhaustive,
        ),
    ],
)
def test_every_mesh_trains_the_same_adapters_and_nothing_else(config_of, fields, mesh):
    config, base = config_of(**DRAWN | fields), random_base(config_of(**DRAWN | fields))
    losses, state = steps_of(config, 1, base)
    devices = int(np.prod([size for size in mesh.values() if type(size) is int]))
    mesh_losses, mesh_state = steps_of(config_of(**DRAWN | fields | mesh), devices, base)
    np.testing.assert_allclose(mesh_losses, losses, rtol=2e-4)
    start = lora.completed(planned(config, 1).trainer.declared, base, jax.random.key(0))
    for path, before in leaves_by_path(start).items():
        after, on_mesh = leaves_by_path(state.params)[path], leaves_by_path(mesh_state.params)[path]
        trained = "_lora/" in path or path.startswith("head")
        assert before.dtype == after.dtype
        if not trained:
            np.testing.assert_array_equal(after, before)
        elif path.endswith("/b"):
            assert np.abs(after).max() > 1e-3
        np.testing.assert_allclose(on_mesh, after, atol=2e-3)
    # The optimizer keeps two numbers for each number of an adapter or head, and three counts.
    trained = sum(p.size for p in jax.tree.leaves(planned(config, 1).trainer.declared) if p.trained)
    assert sum(x.size for x in jax.tree.leaves(state.opt_state) if x.ndim) == 2 * trained


def test_a_base_in_fewer_bits_is_kept_so_and_computes_almost_the_same(config_of):
    exact = loss_function(config_of())(base := random_base(config_of(model__lora_rank=2)))
    config = config_of(model__lora_rank=2, model__lora_base="int8")
    declared = family_of(config.model).declarations
    params = lora.completed(declared, base, jax.random.key(0))
    query = params["layers"]["attention"]["query"]
    assert isinstance(query, Int8) and query.values.dtype == jnp.int8 and params["embedding"].dtype == jnp.bfloat16
    assert params["layers"]["attention_norm"]["scale"].dtype == jnp.float32
    np.testing.assert_allclose(loss_function(config)(params), exact, rtol=2e-2)
    assert jax.tree.map(lambda p: p.abstract, declared) == jax.eval_shape(lambda: params)
    np.testing.assert_allclose(
        widened(query, jnp.float32), base["layers"]["attention"]["query"], atol=np.abs(query.scale).max()
    )


def test_counts_and_flops_know_what_is_frozen(config_of):
    plain, config = config_of(), config_of(model__lora_rank=2, model__lora_target=".*/(query|down)")
    made, before = planned(config, 1), planned(plain, 1)
    D, N, K, H, F, layers = 16, 4, config.model.num_kv_heads, 4, config.model.feedforward_width, 2
    added = layers * 2 * ((D + N * H) + (F + D))
    first = D * (N + 2 * K) * H + D * 2  # read nothing trained: the first queries, keys and values, and an adapter's A
    assert made.parameters.total == before.parameters.total + added
    flops = before.flops_per_token["causal"] + 6 * added - 2 * made.parameters.frozen - 2 * first
    assert made.flops_per_token["causal"] == flops
    assert made.parameters.frozen == sum(
        p.size for p in jax.tree.leaves(before.trainer.declared) if p.kind == "matrix" or p.tied
    )
    assert made.flop_formulas["causal"] == before.flop_formulas["causal"] + " - 2·N_frozen - 2·N_below"
    assert count_parameters(before.trainer.declared).frozen == 0


@pytest.mark.parametrize(
    "fields, message",
    [
        (dict(model__lora_alpha=8.0), "model.lora_alpha = 8.0: needs adapters"),
        (dict(model__lora_rank=2, model__lora_target="("), "model.lora_target.*regular expression"),
        (dict(model__lora_rank=2, model__lora_target="embedding"), "model.lora_target = 'embedding'.*attention"),
        (dict(model__lora_rank=2, model__lora_also="heads"), "model.lora_also = 'heads'.*embedding"),
        (dict(model__lora_rank=2, training__ema_decay=0.9), "training.ema_decay = 0.9"),
        (
            FAMILIES["routed"] | ROUTED | dict(model__lora_rank=2, model__lora_dora=True),
            "model.lora_dora = True: routed experts have plain adapters.* matches layers/feedforward/down",
        ),
    ],
)
def test_settings_that_cannot_work_are_refused(config_of, fields, message):
    with pytest.raises(ConfigError, match=message):
        planned(config_of(**fields), 1)


def test_experts_have_adapters_of_their_own_where_the_target_says_so(config_of):
    plain = family_of(config_of("experts", model__lora_rank=2).model).declarations["layers"]["feedforward"]
    assert "up_lora" not in plain and "up_lora" in plain["shared"]
    made = family_of(config_of("routed", model__lora_rank=2, **ROUTED).model).declarations["layers"]["feedforward"]
    shapes = {part: p.shape for part, p in made["up_lora"].items()}
    assert shapes == {"a": (2, 2, 16, 2), "b": (2, 2, 2, made["up"].shape[-1])}
    assert made["up"].stored == "float32" and made["up_lora"]["a"].active_size == made["up_lora"]["a"].size // 2 * (
        made["up"].active
    )


def test_whole_parameters_may_be_trained_beside_adapters(config_of):
    declared = planned(config_of(model__lora_rank=2, model__lora_also="embedding|.*/value"), 1).trainer.declared
    trained = {path for path, p in leaves_by_path(declared).items() if p.trained and "_lora" not in path}
    assert trained == {"embedding", "layers/attention/value"}
    assert "value_lora" not in declared["layers"]["attention"] and "key_lora" in declared["layers"]["attention"]
