"""Each optimizer against its formulas; which parameters decay, are frozen or scaled; the sharding of states."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import linen as nn
from jax.sharding import NamedSharding

from gptjax.config import ConfigError, default
from gptjax.model.families import family_of
from gptjax.model.parameters import declarations_of, matrix, stacked, vector
from gptjax.model.resolve import resolve_model
from gptjax.model.tree import leaves_by_path, map_with_path
from gptjax.parallel.mesh import AXES, make_mesh
from gptjax.parallel.sharding import params_sharding, state_sharding
from gptjax.training.optimizers.muon import orthogonalize
from gptjax.training.optimizers.optimizer import clip_by_global_norm, make_optimizer
from gptjax.training.optimizers.trained import completed, trained_only, zero_in_frozen_layers
from gptjax.training.optimizers.trained_layers import trained_layers
from gptjax.training.optimizers.treatments import METHODS, summarize, treatments_of
from gptjax.training.state import TrainState

L, D, N, K, H, F, V = 3, 8, 4, 2, 2, 12, 16


def declared_of_everything():
    model = default().model
    model.update(dict(num_layers=L, width=D, num_heads=N, num_kv_heads=K, head_width=H, feedforward_width=F))
    model.update(dict(norm="layernorm", bias="all", qk_norm=True, position="learned", tied_embeddings=False))
    return family_of(resolve_model(model, platform="cpu", vocab_size=V, sequence_length=10)).declarations


DECLARED = declared_of_everything()
LAYER_MATRICES = {f"layers/attention/{name}" for name in ("query", "key", "value", "output")} | {
    f"layers/feedforward/{name}" for name in ("gate", "up", "down")
}
MATRICES = LAYER_MATRICES | {"embedding", "positions", "head"}


def tree_of(seed, declared=DECLARED):
    generator = np.random.default_rng(seed)
    return jax.tree.map(lambda p: generator.normal(size=p.shape).astype(np.float32), declared)


PARAMS = tree_of(0)


def optimizer_config(name="adamw", **overrides):
    config = default().optimizer
    config.update(dict(name=name) | overrides)
    return config


def constant(peak):
    return lambda step: jnp.float32(peak)


def run(config, gradient_trees, declared=DECLARED, **kept):
    """Parameters after one update for each tree of gradients, and the last state."""
    optimizer, treatments = make_optimizer(config, constant, declared, **kept), treatments_of(config, declared)
    params = tree_of(0, declared)
    state = jax.jit(lambda params: optimizer.init(trained_only(params, treatments)))(params)

    @jax.jit
    def update(gradients, state, params):
        trained = trained_only(params, treatments)
        updates, state = optimizer.update(trained_only(gradients, treatments), state, trained)
        return completed(optax.apply_updates(trained, updates), params), state

    for gradients in gradient_trees:
        params, state = update(gradients, state, params)
    return params, state


# --- against the mathematics -----------------------------------------------------------------------------------------


def adamw_reference(p, gradients, config, rate, decay):
    m = v = 0.0
    for t, g in enumerate(gradients, 1):
        m = config.beta1 * m + (1 - config.beta1) * g
        v = config.beta2 * v + (1 - config.beta2) * g**2
        m_hat, v_hat = m / (1 - config.beta1**t), v / (1 - config.beta2**t)
        p = p - rate * (m_hat / (np.sqrt(v_hat) + config.epsilon) + decay * p)
    return p


def lion_reference(p, gradients, config, rate, decay):
    m = 0.0
    for g in gradients:
        p = p - rate * (np.sign(config.beta1 * m + (1 - config.beta1) * g) + decay * p)
        m = config.beta2 * m + (1 - config.beta2) * g
    return p


def sgd_reference(p, gradients, config, rate, decay):
    m = 0.0
    for g in gradients:
        m = config.momentum * m + g
        p = p - rate * (m + decay * p)
    return p


def muon_reference(p, gradients, config, rate, decay, shape):
    m = 0.0
    for g in gradients:
        m = config.momentum * m + g
        direction = np.asarray(g + config.momentum * m).reshape(shape)
        update = np.stack([jax.jit(orthogonalize)(matrix[None])[0] for matrix in direction])
        update = update * np.sqrt(max(1, shape[2] / shape[1]))
        p = p - rate * (update.reshape(p.shape) + decay * p)
    return p


@pytest.mark.parametrize(
    "name, reference", [("adamw", adamw_reference), ("lion", lion_reference), ("sgd", sgd_reference)]
)
def test_three_updates_equal_the_definition(name, reference):
    config = optimizer_config(name, learning_rate=0.01)
    gradients = [tree_of(seed) for seed in (1, 2, 3)]
    actual = leaves_by_path(run(config, gradients)[0])
    for path, p in leaves_by_path(PARAMS).items():
        series = [np.asarray(leaves_by_path(tree)[path], np.float64) for tree in gradients]
        decay = config.weight_decay if path in MATRICES else 0.0
        expected = reference(np.asarray(p, np.float64), series, config, 0.01, decay)
        np.testing.assert_allclose(actual[path], expected, rtol=2e-5, atol=2e-6, err_msg=path)


def test_muon_updates_each_matrix_of_the_layers_and_adamw_the_rest():
    config = optimizer_config("muon", learning_rate=0.01, muon_learning_rate=0.03)
    gradients = [tree_of(seed) for seed in (1, 2)]
    actual = leaves_by_path(run(config, gradients)[0])
    shapes = {"query": (L, D, N * H), "key": (L, D, K * H), "value": (L, D, K * H), "output": (L, N * H, D)}
    for path, p in leaves_by_path(PARAMS).items():
        series = [np.asarray(leaves_by_path(tree)[path]) for tree in gradients]
        if path in LAYER_MATRICES:
            shape = shapes.get(path.split("/")[-1], p.shape)
            expected = muon_reference(np.asarray(p), series, config, 0.03, config.weight_decay, shape)
        else:
            decay = config.weight_decay if path in MATRICES else 0.0
            expected = adamw_reference(np.asarray(p), series, config, 0.01, decay)
        np.testing.assert_allclose(actual[path], expected, rtol=1e-3, atol=1e-4, err_msg=path)


OTHERS = [pytest.param(name, marks=pytest.mark.exhaustive) for name in ("lion", "sgd")]  # the simplest


@pytest.mark.parametrize("name", [*sorted(set(METHODS) - {"lion", "sgd"}), *OTHERS])
def test_every_optimizer_reduces_a_quadratic(name):
    target = tree_of(7)
    config = optimizer_config(name, learning_rate=0.03, muon_learning_rate=0.1, weight_decay=0.0, momentum=0.5)
    optimizer = make_optimizer(config, constant, DECLARED)
    distance = lambda params: sum(  # noqa: E731
        jnp.sum((a - b) ** 2) for a, b in zip(jax.tree.leaves(params), jax.tree.leaves(target))
    )

    def step(carry, _):
        params, state = carry
        updates, state = optimizer.update(jax.grad(distance)(params), state, params)
        return (optax.apply_updates(params, updates), state), distance(params)

    _, losses = jax.jit(lambda p: jax.lax.scan(step, (p, optimizer.init(p)), length=150))(PARAMS)
    assert losses[-1] < 0.05 * losses[0]


@pytest.mark.parametrize(
    "name, frozen", [pytest.param("muon", "0|2", marks=pytest.mark.exhaustive), ("adafactor", "1")]
)
def test_only_the_trained_layers_of_a_stack_have_statistics(name, frozen):
    """Their updates are the same as with statistics of all layers, and frozen layers do not change."""
    config = optimizer_config(name, rules=((f"layers/({frozen})/.*", "freeze", True),))
    kept, gradients = trained_layers(treatments_of(config, DECLARED)), [tree_of(1), tree_of(2)]
    params, state = run(config, gradients, kept=kept)
    expected, whole_state = run(config, gradients)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6), params, expected)
    unmoved = [int(layer) for layer in frozen.split("|")]
    query, before = (tree["layers"]["attention"]["query"] for tree in (params, PARAMS))
    np.testing.assert_array_equal(query[np.array(unmoved)], before[np.array(unmoved)])
    sizes = [
        sum(
            np.shape(x)[0]
            for path, x in leaves_by_path(each).items()
            if "layers/" in path and np.shape(x) not in ((), (1,))
        )
        for each in (state, whole_state)
    ]
    assert sizes[0] * L == sizes[1] * (L - len(unmoved)) > 0


class Mixer(nn.Module):
    """A researcher's idea, with a line for each new parameter."""

    @nn.compact
    def __call__(self, x_BD):
        gate_DF = matrix(self, "gate", {"embed": D}, {"mlp": F}, nn.initializers.normal())
        inner_DD = matrix(self, "inner", {"embed": D}, {"embed": D}, nn.initializers.normal())
        bias_F = vector(self, "shift", {"mlp": F})
        strength = vector(self, "strength", {}, nn.initializers.ones)
        return strength * (x_BD @ inner_DD @ gate_DF + bias_F)


class Idea(nn.Module):
    def setup(self):
        stacked(self, "mixers", L, Mixer(parent=None), jnp.zeros((1, D)))

    def __call__(self):
        return self.variables["params"]["mixers"]


@pytest.mark.parametrize("name", METHODS)
def test_a_new_parameter_works_in_every_optimizer_and_mesh(name):
    declared = declarations_of(Idea())
    config = optimizer_config(name)
    treatments = treatments_of(config, declared)
    assert {path for path, treatment in treatments.items() if treatment.weight_decay} == {"mixers/gate", "mixers/inner"}
    assert name != "muon" or {path for path, t in treatments.items() if t.method == name} == {
        "mixers/gate",
        "mixers/inner",
    }
    mesh = make_mesh(dict.fromkeys(AXES, 1) | dict(data=2, fsdp=2, tensor=2))
    optimizer, gradients = make_optimizer(config, constant, declared), tree_of(1, declared)
    with jax.set_mesh(mesh):
        params = jax.device_put(tree_of(0, declared), params_sharding(mesh, declared))
        updates, _ = jax.jit(lambda *given: optimizer.update(given[0], optimizer.init(given[1]), given[1]))(
            gradients, params
        )
    after, before = run(config, [gradients], declared)[0], tree_of(0, declared)
    on_mesh = jax.tree.map(np.add, params, updates)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5), on_mesh, after)
    assert all(not np.array_equal(a, b) for a, b in zip(jax.tree.leaves(after), jax.tree.leaves(before)))
    assert params["mixers"]["gate"].sharding.shard_shape((L, D, F)) == (L, D // 2, F // 2)


def test_each_group_follows_the_schedule_of_its_own_peak():
    config = optimizer_config("muon", weight_decay=0.0, learning_rate=0.5, muon_learning_rate=2.0)
    declared = {name: DECLARED[name] for name in ("embedding", "layers")}
    params, gradients = tree_of(0, declared), tree_of(1, declared)
    optimizer = make_optimizer(config, lambda peak: lambda step: jnp.where(step < 1, 0.0, peak), declared)
    update = jax.jit(optimizer.update)
    first, state = update(gradients, jax.jit(optimizer.init)(params), params)
    assert not any(np.asarray(leaf).any() for leaf in jax.tree.leaves(first))
    second = leaves_by_path(update(gradients, state, params)[0])
    rms = {path: float(np.sqrt(np.mean(np.square(update)))) for path, update in second.items()}
    assert rms["embedding"] == pytest.approx(0.5, rel=0.01)
    assert rms["layers/attention/query"] == pytest.approx(2.0 / np.sqrt(D), rel=0.2)


# --- treatments ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", METHODS)
def test_only_matrices_decay(name):
    treatments = treatments_of(optimizer_config(name), DECLARED)
    assert {path for path, treatment in treatments.items() if treatment.weight_decay} == MATRICES
    assert {treatment.weight_decay for treatment in treatments.values()} == {0.0, 0.1}


def test_muon_gets_exactly_the_layers_matrices():
    treatments = treatments_of(optimizer_config("muon"), DECLARED)
    assert {path for path, treatment in treatments.items() if treatment.method == "muon"} == LAYER_MATRICES
    assert {treatment.method for treatment in treatments.values()} == {"muon", "adamw"}


def test_decay_does_not_affect_the_moments():
    config = optimizer_config("adamw", learning_rate=0.1, weight_decay=0.5)
    after = run(config, [jax.tree.map(np.zeros_like, PARAMS)])[0]
    np.testing.assert_allclose(after["head"], 0.95 * PARAMS["head"], rtol=1e-6)
    np.testing.assert_array_equal(
        after["layers"]["attention_norm"]["scale"], PARAMS["layers"]["attention_norm"]["scale"]
    )


def test_rules_scale_rates_and_decay_and_the_last_match_decides():
    rules = (
        ("layers/.*", "learning_rate", 0.5),
        ("layers/attention/.*", "learning_rate", 0.25),
        (".*bias", "weight_decay", 2.0),
        ("embedding", "weight_decay", 0),
    )
    treatments = treatments_of(optimizer_config(rules=rules), DECLARED)
    assert treatments["layers/feedforward/up"].learning_rate == 0.5
    assert treatments["layers/attention/query"].learning_rate == 0.25
    assert treatments["embedding"].learning_rate == 1.0 and treatments["embedding"].weight_decay == 0.0
    assert treatments["final_norm/bias"].weight_decay == pytest.approx(0.2)
    plain = run(optimizer_config("sgd", weight_decay=0.0), [tree_of(1)])[0]
    ruled = run(optimizer_config("sgd", weight_decay=0.0, rules=rules), [tree_of(1)])[0]
    for path, factor in {"layers/attention/query": 0.25, "layers/feedforward/up": 0.5, "head": 1.0}.items():
        before, fully, partly = (leaves_by_path(tree)[path] for tree in (PARAMS, plain, ruled))
        np.testing.assert_allclose(partly - before, factor * (fully - before), rtol=1e-3, atol=1e-6)


def test_first_layers_of_another_kind_are_treated_as_layers():
    """Muon takes their matrices, and a rule can name one of them."""
    model = default().model
    model.update(dict(num_layers=3, width=D, num_heads=N, num_experts=2, first_dense_layers=2))
    declared = family_of(resolve_model(model, platform="cpu", vocab_size=V, sequence_length=10)).declarations
    rules = (("first_layers/1/.*", "learning_rate", 0.5),)
    treatments = treatments_of(optimizer_config("muon", rules=rules), declared)
    rates = {path: [layer.learning_rate for layer in t.per_layer] for path, t in treatments.items() if t.per_layer}
    assert rates == {path: [1.0, 0.5] for path in treatments if path.startswith("first_layers/")}
    of_muon = {path for path, treatment in treatments.items() if treatment.method == "muon"}
    first = {f"first_{path}" for path in LAYER_MATRICES}
    assert of_muon == LAYER_MATRICES | first | {"layers/feedforward/router"}


@pytest.mark.parametrize("name", METHODS)
def test_frozen_parameters_have_no_state_and_never_change(name):
    rules = (("layers/.*", "freeze", True), ("embedding", "freeze", True), ("layers/feedforward/.*", "freeze", False))
    config = optimizer_config(name, rules=rules)
    after, state = run(config, [tree_of(1), tree_of(2)])
    after, before = leaves_by_path(after), leaves_by_path(PARAMS)
    frozen = {
        path for path in before if path == "embedding" or path.startswith(("layers/att", "layers/feedforward_norm"))
    }
    assert {path for path in before if np.array_equal(before[path], after[path])} == frozen
    assert not [path for path in leaves_by_path(state) if path.endswith(tuple(frozen))]


def test_an_unfrozen_run_is_the_same_with_and_without_a_rule_that_unfreezes():
    after = run(optimizer_config(rules=((".*", "freeze", True), (".*", "freeze", False))), [tree_of(1)])[0]
    jax.tree.map(np.testing.assert_array_equal, after, run(optimizer_config(), [tree_of(1)])[0])


@pytest.mark.parametrize(
    "config, message",
    [
        (dict(name="adam"), "optimizer.name = 'adam'.*adamw, muon"),
        (dict(rules=(("layers/attn/.*", "freeze", True),)), "matches no parameter.*embedding"),
        (dict(rules=(("layers/attention", "freeze", True),)), "matches no parameter.*full path"),
        (dict(rules=((".*", "freezing", True),)), "'freezing' is not one of learning_rate"),
        (dict(rules=((".*", "freeze", 1.0),)), "freeze is True or False"),
        (dict(rules=((".*", "learning_rate", "0.1"),)), "is a factor"),
        (dict(rules=((".*", "weight_decay", -1.0),)), "is a factor"),
        (dict(rules=((".*", "freeze"),)), "a rule is"),
        (dict(rules=(("(", "freeze", True),)), "not a regular expression"),
        (dict(rules=((".*", "freeze", True),)), "nothing left to train"),
    ],
)
def test_invalid_settings_are_refused_by_name(config, message):
    with pytest.raises(ConfigError, match=message):
        make_optimizer(optimizer_config(**config), constant, DECLARED)


def test_summary_covers_every_parameter_once():
    groups = summarize(treatments_of(optimizer_config("muon", rules=(("embedding", "freeze", True),)), DECLARED))
    assert sum(group["num_parameters"] for group in groups) == sum(leaf.size for leaf in jax.tree.leaves(PARAMS))
    assert sorted(path for group in groups for path in group["paths"]) == sorted(leaves_by_path(PARAMS))
    assert (groups[0]["method"], groups[0]["weight_decay"], set(groups[0]["paths"])) == ("muon", 0.1, LAYER_MATRICES)
    assert [group["paths"] for group in groups if group["method"] == "frozen"] == [["embedding"]]


# --- state, clipping -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", METHODS)
def test_first_moment_dtype_affects_only_the_first_moment(name):
    def dtypes_after_an_update(dtype):
        optimizer = make_optimizer(optimizer_config(name, first_moment_dtype=dtype), constant, DECLARED)
        state = jax.eval_shape(lambda p: optimizer.update(p, optimizer.init(p), p)[1], PARAMS)
        return [leaf.dtype for path, leaf in leaves_by_path(state).items() if path.endswith("layers/attention/query")]

    assert dtypes_after_an_update("bfloat16").count(jnp.bfloat16) == 1
    assert dtypes_after_an_update("float32").count(jnp.bfloat16) == 0


@pytest.mark.parametrize("name", ["adamw", "muon", *OTHERS])
def test_state_is_sharded_like_its_parameters_and_updates_are_the_same(name):
    mesh = make_mesh(dict.fromkeys(AXES, 1) | dict(data=2, fsdp=2, tensor=2))
    config = optimizer_config(name)
    optimizer = make_optimizer(config, constant, DECLARED)
    shardings = params_sharding(mesh, DECLARED)
    with jax.set_mesh(mesh):
        params = jax.device_put(PARAMS, shardings)
        abstract = TrainState(jnp.int32(0), PARAMS, jax.eval_shape(optimizer.init, PARAMS), None, {})
        state = jax.jit(optimizer.init, out_shardings=state_sharding(mesh, abstract, DECLARED).opt_state)(params)
        by_path = leaves_by_path(shardings)
        for path, leaf in leaves_by_path(state).items():
            mirrored = [p for p in by_path if path.endswith("/" + p)]
            expected = (
                by_path[max(mirrored, key=len)] if mirrored else NamedSharding(mesh, jax.sharding.PartitionSpec())
            )
            assert leaf.sharding.is_equivalent_to(expected, leaf.ndim), path
        assert len(jax.tree.leaves(state)) > len(by_path)
        updates, _ = jax.jit(optimizer.update, out_shardings=(shardings, None))(tree_of(1), state, params)
        on_mesh = jax.tree.map(np.add, params, updates)
    alone = run(config, [tree_of(1)])[0]
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5), on_mesh, alone)


def test_clipping_uses_the_given_norm():
    gradients = tree_of(1)
    gradients = {name: gradients[name] for name in ("embedding", "head")}
    norm = optax.tree.norm(gradients)
    assert float(optax.tree.norm(clip_by_global_norm(gradients, norm, 1.0))) == pytest.approx(1.0, rel=1e-5)
    jax.tree.map(np.testing.assert_array_equal, clip_by_global_norm(gradients, norm, 1e6), gradients)
    jax.tree.map(np.testing.assert_array_equal, clip_by_global_norm(gradients, norm, 0.0), gradients)
    expected = jax.tree.map(lambda g: g / 8, gradients)
    jax.tree.map(np.testing.assert_array_equal, clip_by_global_norm(gradients, 16.0, 2.0), expected)


def test_clipping_with_a_non_finite_norm_makes_every_gradient_non_finite():
    gradients = map_with_path(lambda path, g: g * (jnp.nan if path == "head" else 1.0), tree_of(1))
    clipped = clip_by_global_norm(gradients, optax.tree.norm(gradients), 1.0)
    assert all(np.isnan(leaf).all() for leaf in jax.tree.leaves(clipped))


@pytest.mark.parametrize("head", [jnp.inf, -jnp.inf, 1e30])
def test_a_norm_that_overflows_is_not_finite_either(head):
    """Also where every gradient is finite, and only the sum of their squares is too large for a float32."""
    gradients = map_with_path(lambda path, g: jnp.full_like(g, head) if path == "head" else g, tree_of(1))
    norm = optax.tree.norm(gradients)
    assert np.isinf(norm)
    assert not any(np.isfinite(leaf).any() for leaf in jax.tree.leaves(clip_by_global_norm(gradients, norm, 1.0)))


@pytest.mark.parametrize("platform, low", [("cpu", False), ("gpu", True), ("tpu", True)])
def test_muon_computes_in_the_type_for_the_planned_platform(platform, low):
    """The platform may differ from this machine's: steps can be compiled for GPUs on machines without GPUs."""
    optimizer = make_optimizer(optimizer_config("muon"), constant, DECLARED, platform)
    program = jax.make_jaxpr(lambda params: optimizer.update(params, optimizer.init(params), params))(PARAMS)
    assert ("bf16" in str(program)) == low


@pytest.mark.parametrize("name", METHODS)
def test_a_rule_may_name_one_layer_of_a_stack(name):
    rules = (
        (".*", "freeze", True),
        ("layers/1/.*", "freeze", False),
        ("layers/-2/feedforward/.*", "learning_rate", 0.5),  # of three, the same layer, counted from the last
        ("head", "freeze", False),
    )
    config = optimizer_config(name, rules=rules)
    treatments = treatments_of(config, DECLARED)
    query, up = treatments["layers/attention/query"].per_layer, treatments["layers/feedforward/up"].per_layer
    for layers in (query, up):
        assert [layer.method == "frozen" for layer in layers] == [True, False, True]
    assert (query[1].learning_rate, up[1].learning_rate) == (1.0, 0.5)
    gradients = zero_in_frozen_layers(trained_only(tree_of(1), treatments), treatments)
    for path, gradient in leaves_by_path(gradients).items():
        if path.startswith("layers/"):
            assert not gradient[0].any() and gradient[1].any()
    after = leaves_by_path(run(config, [completed(gradients, tree_of(1))])[0])
    alike = {path for path, before in leaves_by_path(PARAMS).items() if np.array_equal(before, after[path])}
    assert alike == {path for path in after if path != "head" and not path.startswith("layers/")}
    for path, before in leaves_by_path(PARAMS).items():
        if path.startswith("layers/"):
            np.testing.assert_array_equal(after[path][0], before[0])
            assert not np.array_equal(after[path][1], before[1])
    shown = summarize(treatments)
    assert sum(group["num_parameters"] for group in shown) == sum(treatment.size for treatment in treatments.values())
    assert any("layers/0/attention/query" in group["paths"] for group in shown if group["method"] == "frozen")


def test_a_rule_for_a_missing_layer_is_refused():
    with pytest.raises(ConfigError, match="matches no parameter"):
        treatments_of(optimizer_config(rules=(("layers/7/.*", "freeze", True),)), DECLARED)


@pytest.mark.parametrize("name", METHODS)
def test_a_stack_whose_layers_are_all_frozen_is_frozen_whatever_rules_name_one_of_its_layers(name):
    rules = (
        ("layers/.*", "freeze", True),
        ("layers/0/.*", "learning_rate", 0.5),
        ("layers/-1/.*", "weight_decay", 2.0),
    )
    config = optimizer_config(name, rules=rules)
    treatments = treatments_of(config, DECLARED)
    stacks = [treatments[path] for path in treatments if path.startswith("layers/")]
    assert {(treatment.method, treatment.per_layer) for treatment in stacks} == {("frozen", ())}
    after = leaves_by_path(run(config, [tree_of(1)])[0])
    for path, before in leaves_by_path(PARAMS).items():
        assert np.array_equal(before, after[path]) == path.startswith("layers/")


def test_a_rule_for_one_layer_may_meet_stacks_that_an_objective_does_not_train():
    config = optimizer_config(rules=(("layers/0/.*", "learning_rate", 0.5),))
    treatments = treatments_of(config, DECLARED, trains=lambda path: not path.startswith("layers/attention/"))
    assert treatments["layers/attention/query"].method == "frozen"
    assert [layer.learning_rate for layer in treatments["layers/feedforward/up"].per_layer] == [0.5, 1.0, 1.0]
