"""Pipeline stages: the predicted schedule is the one that runs, and results equal those of layers run in order."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from compiled_work import work_of

from gptjax.config import ConfigError
from gptjax.data.facts import DataFacts
from gptjax.model.rematerialization import ATTENTION_OUTPUT
from gptjax.parallel.kernel import divided
from gptjax.parallel.pipeline import Schedule, pipelined
from gptjax.parallel.traffic import collectives_of
from gptjax.planning import plan
from gptjax.runs.shown_settings import derived_facts

SCHEDULES = [Schedule(2, 2), Schedule(4, 8), Schedule(4, 4, 2), Schedule(4, 8, 3), Schedule(2, 6, 4), Schedule(6, 6, 4)]


@pytest.mark.parametrize("schedule", SCHEDULES, ids=str)
def test_the_bubble_is_the_idle_part_of_the_schedule(schedule):
    """Every stage runs each of its groups of layers on each micro-batch once, after the preceding group."""
    stages, ticks = np.arange(schedule.stages), np.arange(schedule.ticks)
    microbatch, repeat, busy = schedule.at(stages[:, None], ticks)
    assert schedule.bubble == pytest.approx(1 - busy.mean(), abs=1e-12)
    done = {}
    for tick in ticks:
        for stage in stages[busy[:, tick]]:
            step = int(microbatch[stage, tick]), int(repeat[stage, tick]) * schedule.stages + int(stage)
            assert step not in done
            done[step] = tick
    groups = schedule.stages * schedule.repeats
    assert set(done) == {(m, g) for m in range(schedule.microbatches) for g in range(groups)}
    assert all(done[m, g] > done[m, g - 1] for m, g in done if g)


def test_the_bubble_of_published_schedules():
    """GPipe, arXiv:1811.06965, section 2.3: (K - 1) / (M + K - 1); interleaved, arXiv:2104.04473, section 2.2: the idle
    time is (p - 1) / (v m) of the ideal time."""
    assert Schedule(4, 16).bubble == pytest.approx(3 / 19)
    lost = Schedule(4, 16, 2).bubble
    assert lost / (1 - lost) == pytest.approx(3 / 32)


@functools.cache
def mesh_of(stages, data, tensor=1):
    devices = jax.devices()[: stages * data * tensor]
    return jax.make_mesh(
        (stages, data, 1, 1, 1, tensor),
        ("pipeline", "data", "fsdp", "expert", "context", "tensor"),
        axis_types=(jax.sharding.AxisType.Auto,) * 6,
        devices=devices,
    )


def traced_layers(layers, x_BTD, seen, keys_LB):
    """Layers that do not commute and that report their scale, the input row and a number drawn from its key."""
    statistics = []
    for index in range(layers["scale"].shape[0]):
        scale, shift = layers["scale"][index], layers["shift"][index]
        drawn_B = jnp.zeros(x_BTD.shape[0])
        if keys_LB is not None:
            drawn_B = jax.vmap(jax.random.uniform)(keys_LB[index])
        statistics.append({"scale": scale + 0 * drawn_B, "input": x_BTD[:, 0, 0], "drawn": drawn_B})
        x_BTD = jnp.sin(x_BTD * scale) + shift + seen["row"] + seen["all"] + drawn_B[:, None, None]
    return x_BTD, jax.tree.map(lambda *each: jnp.stack(each), *statistics)


@pytest.mark.parametrize(
    "schedule, data",
    [
        (Schedule(4, 8), 2),
        (Schedule(2, 2, 3), 4),
        pytest.param(Schedule(2, 2), 2, marks=pytest.mark.exhaustive),
        pytest.param(Schedule(4, 8, 3), 2, marks=pytest.mark.exhaustive),
        pytest.param(Schedule(4, 8, 2), 1, marks=pytest.mark.exhaustive),
        pytest.param(Schedule(6, 6, 4), 1, marks=pytest.mark.exhaustive),
    ],
    ids=str,
)
def test_rows_pass_through_all_layers_in_order_with_their_own_keys(schedule, data):
    """Values, gradients, statistics and random numbers are those of the layers run one after the other."""
    groups, rows = schedule.stages * schedule.repeats, 2 * schedule.microbatches * data
    num_layers = groups * (2 if groups < 8 else 1)
    rng = np.random.default_rng(0)
    layers = {name: jnp.array(rng.normal(size=(num_layers, 1, 1)), jnp.float32) for name in ("scale", "shift")}
    layers["scale"] = layers["scale"][:, 0, 0]
    x_BTD = jnp.array(rng.normal(size=(rows, 3, 2)), jnp.float32)
    seen = {"row": jnp.array(rng.normal(size=(rows, 1, 1)), jnp.float32), "all": jnp.ones((1, 3, 1))}
    keys_LB = jax.random.split(jax.random.key(1), (num_layers, rows))
    weight_B = jnp.array(rng.normal(size=(rows, 1, 1)), jnp.float32)

    def loss(run, layers, x_BTD, seen):
        y_BTD, statistics = run(layers, x_BTD, seen, keys_LB)
        return (weight_B * y_BTD).sum() + (weight_B[:, 0, 0] * statistics["input"]).sum(), (y_BTD, statistics)

    def through_stages(*args):
        return pipelined(traced_layers, *args, schedule=schedule, keep=lambda *_, **__: False)

    both = []
    for run in (traced_layers, through_stages):
        with jax.set_mesh(mesh_of(schedule.stages, data)):
            differentiate = jax.value_and_grad(functools.partial(loss, run), argnums=(0, 1, 2), has_aux=True)
            both.append(jax.device_get(jax.jit(differentiate)(layers, x_BTD, seen)))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5), *both)


def planned(tiny_config, **fields):
    config = tiny_config(**fields)
    sizes = [config.mesh[axis] for axis in ("pipeline", "data", "fsdp", "tensor")]
    return plan(config, DataFacts(vocab_size=32), jax.devices()[: math.prod(sizes)])


PIPELINE = dict(mesh__pipeline=4, mesh__data=1, model__num_layers=8)
FIRST_DENSE = dict(model__num_layers=5, model__num_experts=2, model__first_dense_layers=1)


@pytest.mark.parametrize(
    "fields, message",
    [
        (dict(model__num_layers=6), r"mesh.pipeline = 4 .* 6 layers of 'layers' .* may be 1, 2, 3, 6$"),
        (dict(mesh__pipeline_repeats=3), r"mesh.pipeline_repeats = 3: .* may be 1, 2, 4, 8$"),
        (dict(model__window=4, model__window_pattern="SSSL"), r"model.window_pattern = 'SSSL' .* may be 1, 2$"),
        (dict(model__num_experts=2, model__first_dense_layers=2), r"6 layers of 'layers' .* may be 1, 2, 3, 6$"),
        (
            dict(mesh__pipeline_microbatches=6),
            r"mesh.pipeline_microbatches = 6: must be a multiple of mesh.pipeline = 4",
        ),
        (dict(mesh__pipeline_microbatches=12), r"= 16: must be divisible by 12, the product of 12 micro-batches$"),
        (dict(mesh__data=2, mesh__pipeline_microbatches=16), r"divisible by 32, .* 16 micro-batches and mesh.data$"),
        (dict(mesh__pipeline=1, mesh__pipeline_repeats=2), "mesh.pipeline_repeats = 2: must be 1 where"),
        (dict(mesh__pipeline=1, mesh__pipeline_microbatches=2), "mesh.pipeline_microbatches = 2: must be 0 where"),
        (
            dict(
                model__family="encoder_decoder",
                model__num_encoder_layers=2,
                training__objective="seq2seq",
                mesh__pipeline_microbatches=4,
            ),
            r"2 layers of 'encoder/layers' .* may be 1, 2$",
        ),
    ],
    ids=str,
)
def test_configs_that_do_not_divide_are_refused_before_compilation(tiny_config, fields, message):
    with pytest.raises(ConfigError, match=message):
        planned(tiny_config, **PIPELINE | fields)


@pytest.mark.parametrize("pattern, fields", [("SL", {}), ("SLLLL", FIRST_DENSE)])
def test_a_pattern_that_repeats_in_each_stage_is_accepted(tiny_config, pattern, fields):
    planned(tiny_config, **PIPELINE | dict(model__window=4, model__window_pattern=pattern) | fields)


def test_the_settings_show_the_bubble(tiny_config):
    made = planned(tiny_config, **PIPELINE | dict(mesh__pipeline_microbatches=8, mesh__pipeline_repeats=2))
    told = derived_facts(made)["run"]["pipeline"]
    assert "8 micro-batches through 4 stages, 2 times" in told and "15.8%" in told  # 3 of 19 ticks
    assert "pipeline" not in derived_facts(planned(tiny_config, mesh__data=1))["run"]


@pytest.mark.parametrize("fields", [{}, FIRST_DENSE], ids=str)
def test_a_stage_holds_its_layers_and_a_part_of_the_other_parameters(tiny_config, fields):
    state = planned(tiny_config, **PIPELINE | fields).abstract_state
    for tree in (state.params, state.opt_state):
        sizes = [(leaf.size, math.prod(leaf.sharding.shard_shape(leaf.shape))) for leaf in jax.tree.leaves(tree)]
        whole, held = (sum(column) for column in zip(*sizes))
        assert held < whole / 4 * 1.02


def compiled_step(tiny_config, **fields):
    made = planned(tiny_config, **dict(mesh__data=1, model__layers="scan") | fields)
    with jax.set_mesh(made.mesh):
        return made.trainer.compile_train_step(made.abstract_batch), made


def test_a_device_computes_its_part_and_the_bubble_and_sends_what_the_schedule_predicts(tiny_config):
    """Products are counted in the compiled programs. All of them are divided by the stages, but only those of the
    layers take additional ticks for the bubble."""
    four, eight = (work_of(compiled_step(tiny_config, model__num_layers=count)[0])["products"] for count in (4, 8))
    layers, rest = eight - four, 2 * four - eight
    schedule = Schedule(stages=2, microbatches=4, repeats=2)
    fields = dict(mesh__pipeline=2, mesh__pipeline_microbatches=4, mesh__pipeline_repeats=2)
    compiled, made = compiled_step(tiny_config, model__num_layers=4, **fields)
    work = work_of(compiled)
    assert work["products"] == pytest.approx(layers / 2 / (1 - schedule.bubble) + rest / 2, rel=1e-9)
    # Parameters forward, and their gradients backward.
    dealt = 2 * len(jax.tree.leaves(made.abstract_state.params["layers"]))
    assert work["collective-permute"] == 4 * schedule.ticks + schedule.repeats * dealt  # to both sides, and backward
    others = [each for each in collectives_of(compiled.as_text(), 2) if each.kind != "collective-permute"]
    assert others and all(each.times == 1 for each in others)  # outside of the ticks


@pytest.mark.parametrize("repeats", [pytest.param(1, marks=pytest.mark.exhaustive), 2])
def test_no_tick_keeps_parameters_of_its_own(tiny_config, repeats):
    """With this many ticks, a copy of a stage's parameters per tick would take most of the memory."""
    made = planned(
        tiny_config,
        mesh__data=1,
        mesh__pipeline=2,
        mesh__pipeline_microbatches=8,
        mesh__pipeline_repeats=repeats,
        model__num_layers=4,
        model__width=256,
        model__remat="full",
        model__layers="scan",
    )
    with jax.set_mesh(made.mesh):
        memory = made.trainer.compile_train_step(made.abstract_batch).memory_analysis()
    of_stage = sum(leaf.size for leaf in jax.tree.leaves(made.abstract_state.params["layers"])) * 4 / 2
    assert memory.temp_size_in_bytes < 5 * of_stage  # gradients, gradients of one tick, and redistributed parameters


def test_a_kernel_that_the_compiler_cannot_divide_gets_its_part_and_does_not_run_again():
    """cuDNN's kernel is one, but it needs a GPU; see tests/experiments/ahead_of_time."""
    rng = np.random.default_rng(0)
    q_BTNH, k_BSKH, v_BSKH = (jnp.array(rng.normal(size=(8, 4, heads, 2)), jnp.float32) for heads in (4, 2, 2))
    layers = {"scale": jnp.array(rng.normal(size=4), jnp.float32)}

    def kernel(q_BTNH, k_BSKH, v_BSKH, **_):  # like cuDNN's, this kernel captures no arrays
        q_BTKGH = q_BTNH.reshape(*q_BTNH.shape[:2], k_BSKH.shape[2], -1, 2)
        return jnp.einsum("BTKGH,BSKH,BSKV->BTKGV", q_BTKGH, k_BSKH, v_BSKH).reshape(q_BTNH.shape)

    def run(attend, layers, q_BTNH, seen, keys_LB):
        for scale in layers["scale"]:
            q_BTNH = q_BTNH + attend(scale * q_BTNH, *seen)
        return q_BTNH, {}

    def loss(attend, layers, q_BTNH, seen):
        y_BTNH, _ = pipelined(
            functools.partial(run, attend), layers, q_BTNH, seen, None, schedule=Schedule(2, 2), keep=lambda *_: False
        )
        return jnp.sin(y_BTNH).sum()

    saved = jax.checkpoint_policies.save_only_these_names(ATTENTION_OUTPUT)
    both, arguments = [], (layers, q_BTNH, (k_BSKH, v_BSKH))
    with jax.set_mesh(mesh_of(2, 2, 2)):
        for attend in (kernel, jax.checkpoint(functools.partial(divided, kernel), policy=saved)):
            differentiate = jax.value_and_grad(functools.partial(loss, attend), argnums=(0, 1, 2))
            compiled = jax.jit(differentiate).lower(*arguments).compile()
            both.append((jax.device_get(compiled(*arguments)), work_of(compiled)["products"]))
    (expected, products), (result, with_part) = both
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5), expected, result)
    assert with_part == products / 2  # without its own part, it is not divided over `tensor`
