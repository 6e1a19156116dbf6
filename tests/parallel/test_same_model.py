"""Every mesh computes the same model: the loss and every gradient on eight devices equal those of one device.

A few meshes of each kind of parallelism are always tested. `make test-meshes` draws many more.
"""

import functools
import math

import pytest
from hypothesis import HealthCheck, Phase, event, given, reject, settings
from hypothesis import strategies as st
from one_step import PLAIN, assert_same, planned, step_of

from gptjax.config import ConfigError
from gptjax.parallel.mesh import AXES

pytestmark = pytest.mark.slow

PACKED = dict(data__windows="packed")
WINDOW = dict(model__window=3, model__window_pattern="SL")
PAIRS = dict(
    model__family="encoder_decoder",
    model__num_encoder_layers=2,
    model__shared_embeddings=False,
    model__source_vocab_size=40,
    training__objective="seq2seq",
    data__source_length=12,
)
REPORTING = dict(model__family="reporting_blocks:ReportingFamily", training__objective="reporting_blocks:Small")
DROPOUT = dict(model__dropout=0.2, model__attention_dropout=0.2)


further = functools.partial(pytest.param, marks=pytest.mark.exhaustive)


@functools.cache
def on_one_device(config):
    return step_of(config, 1)


def configured(tiny_config, mesh, options):
    """(config, number of devices) for a mesh, given as fields of the `mesh` section."""
    options = dict(model__num_layers=4, model__layers="scan") | options | PLAIN
    devices = math.prod(size for field, size in mesh.items() if field in AXES)
    return tiny_config(**options, **{f"mesh__{field}": value for field, value in mesh.items()}), devices


def check(tiny_config, mesh, options):
    """Compares a step on a mesh with the same step on one device."""
    of_mesh = configured(tiny_config, dict(data=1) | mesh, options)
    assert_same(on_one_device(configured(tiny_config, {}, options)[0]), step_of(*of_mesh))


@pytest.mark.parametrize(
    "mesh, options",
    [
        (dict(data=4), DROPOUT | dict(training__gradient_accumulation_steps=2)),
        (
            dict(data=2, fsdp=2),
            PACKED
            | DROPOUT
            | dict(model__position="learned", model__tied_embeddings=False)
            | dict(training__loss_chunk=8, training__gradient_accumulation_steps=2),
        ),
        further(dict(data=2, fsdp=2, tensor=2, zero1=True), dict(training__gradient_accumulation_steps=2)),
        further(
            dict(data=4), REPORTING | DROPOUT | dict(training__gradient_accumulation_steps=2, training__loss_chunk=8)
        ),
        further(dict(fsdp=4), PAIRS | dict(training__gradient_accumulation_steps=2, training__loss_chunk=8)),
        further(dict(fsdp=2, tensor=2), dict(model__position="sinusoidal", training__loss_chunk=8)),
    ],
    ids=str,
)
def test_data_and_fsdp(tiny_config, mesh, options):
    check(tiny_config, mesh, dict(model__num_layers=2) | options)


@pytest.mark.parametrize(
    "mesh, options",
    [
        (
            dict(pipeline=2, fsdp=2, pipeline_repeats=2, pipeline_microbatches=4),
            REPORTING | DROPOUT | dict(training__loss_chunk=8),
        ),
        further(
            dict(pipeline=2, fsdp=2, tensor=2),
            PACKED | WINDOW | dict(model__remat="dots", training__gradient_accumulation_steps=2),
        ),
        further(dict(pipeline=2, data=2, pipeline_microbatches=4), PAIRS | dict(model__num_layers=2)),
        further(dict(pipeline=2, data=2, fsdp=2), DROPOUT | PACKED | dict(training__gradient_accumulation_steps=2)),
    ],
    ids=str,
)
def test_pipeline(tiny_config, mesh, options):
    check(tiny_config, mesh, options)


@pytest.mark.parametrize(
    "mesh, options",
    [
        further(
            dict(context=2, fsdp=2, tensor=2),
            PACKED | WINDOW | DROPOUT | dict(model__num_layers=2, training__loss_chunk=8),
        ),
        further(
            dict(context=2, pipeline=2, tensor=2),
            PACKED | WINDOW | dict(model__remat="dots", training__gradient_accumulation_steps=2),
        ),
        further(
            dict(context=2, pipeline=2, data=2),
            PACKED | dict(model__remat="full", training__gradient_accumulation_steps=2),
        ),
        (
            dict(context=2, pipeline=2, fsdp=2, context_attention="ring"),
            PACKED | dict(model__remat="full", model__num_layers=2, model__attention_sinks=True),
        ),
        further(
            dict(context=4, fsdp=2, context_attention="ring"),
            PACKED | WINDOW | dict(model__remat="full", model__num_layers=2, training__loss_chunk=8),
        ),
        further(dict(context=4, data=2), PAIRS | dict(model__num_layers=2)),
        further(dict(context=4, tensor=2, context_attention="ring"), PAIRS | dict(model__num_layers=2)),
    ],
    ids=str,
)
def test_context(tiny_config, mesh, options):
    check(tiny_config, mesh, options)


EXPERTS = dict(
    model__num_experts=4,
    model__feedforward_width=16,
    model__router_bias=True,
    model__shared_experts=1,
    training__load_balance_loss=0.5,
    training__router_z_loss=0.1,
)
CAPACITY = EXPERTS | dict(model__expert_capacity=1.0)
FIRST_DENSE = dict(model__num_layers=3, model__first_dense_layers=1, model__first_dense_width=24)


@pytest.mark.parametrize(
    "mesh, options",
    [
        (dict(expert=2, context=2, data=2, zero1=True, expert_exchange="all_to_all"), CAPACITY | PACKED),
        further(dict(pipeline=2, expert=2, tensor=2), EXPERTS | PACKED),
        further(dict(expert=2, context=2, fsdp=2), CAPACITY | PACKED),
        further(dict(expert=4, data=2), CAPACITY | PACKED),
        further(dict(expert=2, context=2, tensor=2, expert_exchange="all_to_all"), CAPACITY | PACKED),
        further(dict(expert=2, context=2, tensor=2), EXPERTS | PACKED | dict(model__remat="dots")),
        (
            dict(pipeline=2, expert=2),
            EXPERTS | FIRST_DENSE | PACKED | dict(model__remat="dots", model__norm_placement="sandwich"),
        ),
        further(dict(pipeline=2, expert=2, data=2, expert_exchange="all_to_all"), CAPACITY | dict(model__remat="full")),
        further(dict(pipeline=2, expert=2, fsdp=2, pipeline_microbatches=4), EXPERTS | dict(training__loss_chunk=8)),
        further(dict(pipeline=2, expert=2, context=2), CAPACITY | PACKED),
    ],
    ids=str,
)
def test_experts(tiny_config, mesh, options):
    check(tiny_config, mesh, dict(model__num_layers=2) | options)


# --- drawn meshes: make test-meshes ----------------------------------------------------------------------------------

DRAWN = 20  # for each axis


def one_of(*options):
    return st.sampled_from(options)


MODELS = one_of(
    dict(),
    PACKED,
    WINDOW,
    PACKED | WINDOW | dict(model__window_pattern="S"),
    DROPOUT | PACKED,
    REPORTING | DROPOUT,
    PAIRS,
    PAIRS | dict(model__num_encoder_layers=4, model__position="learned", model__norm="layernorm", **DROPOUT),
    dict(model__family="encoder", training__objective="masked"),
    dict(model__family="classifier", training__objective="classification", model__num_classes=3, **DROPOUT),
    dict(model__position="alibi", model__attention_sinks=True, model__qk_norm=True, model__norm_placement="sandwich"),
    dict(
        model__norm_placement="post_residual",
        model__position="learned",
        model__tied_embeddings=False,
        model__bias="qkv+output+norm",
    ),
)
MIXTURES = one_of(
    EXPERTS,
    EXPERTS | dict(model__router_scores="sigmoid", training__load_balance_over="batch"),
    EXPERTS | FIRST_DENSE | dict(model__num_layers=5),
    CAPACITY,
    CAPACITY | FIRST_DENSE | dict(model__num_layers=6, model__first_dense_layers=2),
)
WAYS = st.fixed_dictionaries(
    dict(
        model__layers=one_of("scan", "unroll"),
        model__remat=one_of("none", "dots", "attention", "full"),
        model__attention=one_of("reference", "xla"),
        model__num_kv_heads=one_of(2, 4),
        training__gradient_accumulation_steps=one_of(1, 2),
        training__loss_chunk=one_of(0, 8),
    )
)
FIELDS = dict(  # of the section `mesh`, by the axis without which they have no meaning
    data=dict(zero1=one_of(False, True)),
    expert=dict(expert_exchange=one_of("auto", "ring", "all_to_all")),
    context=dict(context_attention=one_of("auto", "all_to_all", "ring")),
    pipeline=dict(pipeline_repeats=one_of(1, 1, 2), pipeline_microbatches=one_of(0, 4, 8)),
)


@st.composite
def cases(draw, axis):
    """A mesh of at most eight devices, at least two of them along `axis`, and a model on it. The pair may be
    refused."""
    mesh = {axis: draw(one_of(2, 4))}
    for other in draw(st.permutations([other for other in AXES if other != axis])):
        left = 8 // math.prod(mesh.values())
        mesh[other] = draw(one_of(*(size for size in (1, 2, 4) if size <= left)))
    several = [name for name, size in mesh.items() if size > 1]
    fields = {name: draw(values) for each in several for name, values in FIELDS.get(each, {}).items()}
    mixture = draw(MIXTURES) if "expert" in several or draw(st.booleans()) else {}
    return mesh | fields, draw(WAYS) | draw(MODELS) | mixture


@pytest.mark.exhaustive
@pytest.mark.parametrize("axis", AXES)
def test_any_mesh(tiny_config, axis):
    """Draws any product of the axes with any model. Combinations that gptjax refuses are drawn again."""
    compared = []

    @settings(
        max_examples=DRAWN,
        deadline=None,
        database=None,
        derandomize=True,
        phases=[Phase.generate],
        suppress_health_check=[HealthCheck.filter_too_much, HealthCheck.too_slow],
    )
    @given(case=cases(axis))
    def compare(case):
        try:
            planned(*configured(tiny_config, *case))
        except ConfigError as error:
            event(f"refused: {error}")
            reject()
        check(tiny_config, *case)
        compared.append(case)

    compare()
    assert len(compared) >= DRAWN
