"""Every mesh is the same model: the loss and every gradient on eight devices are those of one device.

A few cells of each kind of parallelism are tested always. `make test-meshes` draws many more.
"""

import functools
import math

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from one_step import PLAIN, assert_same, step_of

from gptjax.parallel.mesh import AXES

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


def check(tiny_config, mesh, options):
    """Compares a mesh, {axis or other field of the section: size}, with one device."""
    options = dict(model__num_layers=4, model__layers="scan") | options | PLAIN
    devices = math.prod(size for field, size in mesh.items() if field in AXES)
    fields = {f"mesh__{field}": size for field, size in (dict(data=1) | mesh).items()}
    assert_same(on_one_device(tiny_config(**options)), step_of(tiny_config(**options, **fields), devices))


@pytest.mark.parametrize(
    "mesh, options",
    [
        (dict(data=4), DROPOUT | dict(training__gradient_accumulation_steps=2)),
        (
            dict(data=2, fsdp=2),
            PACKED | dict(model__position="learned", model__tied_embeddings=False, training__loss_chunk=8),
        ),
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
        (
            dict(context=2, pipeline=2, tensor=2),
            PACKED | WINDOW | dict(model__remat="dots", training__gradient_accumulation_steps=2),
        ),
        further(
            dict(context=2, pipeline=2, data=2),
            PACKED | dict(model__remat="full", training__gradient_accumulation_steps=2),
        ),
        (
            dict(context=4, fsdp=2, context_attention="ring"),
            PACKED | WINDOW | dict(model__remat="full", model__num_layers=2, training__loss_chunk=8),
        ),
        further(dict(context=4, data=2), PAIRS | dict(model__num_layers=2)),
    ],
    ids=str,
)
def test_context(tiny_config, mesh, options):
    check(tiny_config, mesh, options)


EXPERTS = dict(
    model__num_layers=2,
    model__num_experts=4,
    model__feedforward_width=16,
    model__router_bias=True,
    model__shared_experts=1,
    training__load_balance_loss=0.5,
    training__router_z_loss=0.1,
)
CAPACITY = EXPERTS | dict(model__expert_capacity=1.0)


@pytest.mark.parametrize(
    "mesh, options",
    [
        (dict(expert=2, context=2, fsdp=2, expert_exchange="all_to_all"), CAPACITY | PACKED),
        further(dict(expert=4, data=2), CAPACITY | PACKED),
        further(dict(expert=2, context=2, tensor=2, expert_exchange="all_to_all"), CAPACITY | PACKED),
        further(dict(expert=2, context=2, tensor=2), EXPERTS | PACKED | dict(model__remat="dots")),
        (dict(pipeline=2, expert=2, tensor=2), EXPERTS | PACKED),
        further(dict(pipeline=2, expert=2, data=2, expert_exchange="all_to_all"), CAPACITY | dict(model__remat="full")),
        further(dict(pipeline=2, expert=2, fsdp=2, pipeline_microbatches=4), EXPERTS | dict(training__loss_chunk=8)),
        further(dict(pipeline=2, expert=2, context=2), CAPACITY | PACKED),
    ],
    ids=str,
)
def test_experts(tiny_config, mesh, options):
    check(tiny_config, mesh, options)


# --- drawn meshes: make test-meshes ----------------------------------------------------------------------------------


def one_of(*options):
    return st.sampled_from(options)


MODELS = one_of(
    dict(),
    PACKED,
    WINDOW,
    PACKED | WINDOW,
    DROPOUT | PACKED,
    REPORTING | DROPOUT,
    PAIRS,
    PAIRS | dict(model__position="learned", model__norm="layernorm", model__bias="all", **DROPOUT),
    dict(model__family="encoder", training__objective="masked"),
    dict(model__family="classifier", training__objective="classification", model__num_classes=3, **DROPOUT),
    dict(model__position="alibi", model__attention_sinks=True, model__qk_norm=True, model__norm_placement="sandwich"),
    dict(model__norm_placement="post_residual", model__position="learned", model__tied_embeddings=False),
)
WAYS = st.fixed_dictionaries(
    dict(
        model__layers=one_of("scan", "unroll"),
        model__remat=one_of("none", "dots", "full"),
        model__attention=one_of("reference", "xla"),
        model__num_kv_heads=one_of(2, 4),
        training__gradient_accumulation_steps=one_of(1, 2),
        training__loss_chunk=one_of(0, 8),
    )
)


@st.composite
def meshes_with_pipelines(draw):
    """A mesh of at most eight devices, of which at least two are stages of four layers."""
    stages = draw(one_of(2, 4))
    rest = 8 // stages
    data = draw(one_of(*(size for size in (1, 2, 4) if size <= rest)))
    fsdp = draw(one_of(*(size for size in (1, 2, 4) if size <= rest // data)))
    tensor = draw(one_of(*(size for size in (1, 2) if size <= rest // data // fsdp)))
    repeats = draw(one_of(1, 2)) if stages == 2 else 1
    parts = stages * draw(one_of(1, 2)) if stages * data * fsdp <= 4 else 0
    return dict(
        pipeline=stages, data=data, fsdp=fsdp, tensor=tensor, pipeline_repeats=repeats, pipeline_microbatches=parts
    )


def drawn(**strategies):
    """Draws 40 cases, the same ones every time."""

    def decorate(test):
        test = settings(
            max_examples=40,
            deadline=None,
            derandomize=True,
            phases=[Phase.generate],
            suppress_health_check=[HealthCheck.function_scoped_fixture],
        )(given(**strategies)(test))
        return pytest.mark.exhaustive(test)

    return decorate


@drawn(mesh=meshes_with_pipelines(), model=MODELS, way=WAYS)
def test_any_mesh_with_a_pipeline(tiny_config, mesh, model, way):
    if model.get("model__window") and mesh["pipeline"] * mesh["pipeline_repeats"] == 4:
        model = model | dict(model__window_pattern="S")  # one layer on each stage
    if model.get("model__num_encoder_layers") and mesh["pipeline"] * mesh["pipeline_repeats"] == 4:
        model = model | dict(model__num_encoder_layers=4)
    check(tiny_config, mesh, way | model)


@st.composite
def meshes_with_context(draw):
    """A mesh of at most eight devices, of which at least two have parts of each sequence."""
    context, way = draw(one_of(2, 4)), draw(one_of("auto", "ring"))
    rest = 8 // context
    tensor = draw(one_of(*(size for size in (1, 2) if size <= rest)))
    others = ["data", "fsdp"]
    if way == "auto" and context * tensor <= 4:  # four heads are enough
        others.append("pipeline")
    other = min(2, rest // tensor)
    return {"context": context, "context_attention": way, "tensor": tensor, draw(one_of(*others)): other}


@drawn(mesh=meshes_with_context(), model=MODELS, way=WAYS)
def test_any_mesh_with_context(tiny_config, mesh, model, way):
    if mesh["context_attention"] == "ring" or mesh["context"] * mesh["tensor"] > 4:  # what a ring does not know
        if model.get("model__family") == "encoder_decoder":
            model = PACKED
        model = model | dict(model__attention_dropout=0.0)
    check(tiny_config, mesh, way | model)
