"""A student learns from a teacher: what it computes, on every mesh, and that a run continues only with its teacher."""

import functools
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from one_step import PLAIN, assert_same, random_batch, step_of
from prepared_folders import random_documents, write_prepared
from report_of_run import words_of_report
from training_runs import losses_and_scores, train_run

from gptjax import train as command
from gptjax.config import ConfigError, default, to_json
from gptjax.model.families import family_of
from gptjax.model.parameters import abstract_params
from gptjax.runs.start import check_start
from gptjax.tokenizer import CONTROL_TOKENS, ByteTokenizer
from gptjax.training.checkpoints.loading import saved_metadata
from gptjax.training.companions import Companion
from gptjax.training.objectives import make_objective
from gptjax.training.records.writers import read_metrics

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """A folder with data and the run of a teacher, of which each test gets its own copy."""
    folder = tmp_path_factory.mktemp("distillation")
    documents = [list(ids % 256) for ids in random_documents(30, 60)]
    write_prepared(folder / "data", train=documents, validation=documents[:5], tokenizer=ByteTokenizer())
    train_run(config_of(folder, model__num_layers=2, model__width=32), folder / "teacher")
    return folder


def config_of(folder, **fields):
    config = default()
    config.model.update(num_layers=1, width=16, num_heads=2)
    config.data.update(path=str(folder / "data"), sequence_length=16)
    config.training.update(duration="4 steps", batch_size=16)
    config.checkpoint.update(every="2 steps", keep_latest=5)
    config.evaluation.update(every="2 steps", tokens=128)
    config.logging.update(every="1 step", tensorboard=False, plots=False)
    for field, value in fields.items():
        section, name = field.split("__")
        config[section][name] = value
    return config


def student_of(folder, teacher, **fields):
    return config_of(folder, **dict(training__objective="distillation", training__teacher=str(teacher)) | fields)


def test_the_loss_weighs_the_text_and_the_teacher(tiny_config):
    config = tiny_config(
        training__objective="distillation",
        training__distillation_weight=0.7,
        training__distillation_temperature=2.0,
    )
    objective, family, draw = make_objective(config), family_of(config.model), np.random.default_rng(0)
    model, shapes = family.module(), abstract_params(family.declarations)
    student, teacher = (jax.tree.map(lambda x: jnp.float32(draw.normal(0, 0.3, x.shape)), shapes) for _ in range(2))
    batch = random_batch(objective.row_fields(), 2, draw)
    loss, figures = jax.jit(functools.partial(objective.loss, model))(student, batch, teacher=Companion(teacher, model))
    assert figures["divergence"] > 0.1
    assert float(loss) == pytest.approx(float(0.3 * figures["loss"] + 0.7 * 2.0**2 * figures["divergence"]), rel=1e-5)


def test_a_student_that_starts_as_its_teacher_has_nothing_to_learn_from_it(folders, tmp_path):
    teacher = folders / "teacher"
    config = student_of(
        folders,
        teacher,
        model__num_layers=2,
        model__width=32,
        training__init_from=str(teacher),
        training__distillation_weight=1.0,
        training__distillation_top_k=5,
        training__distillation_temperature=2.0,
    )
    train_run(config, tmp_path / "run")
    first = read_metrics(tmp_path / "run" / "metrics.jsonl")[0]
    assert first["train/loss"] == pytest.approx(first["train/teacher_loss"], rel=1e-6)
    assert abs(first["train/divergence"]) < 1e-6 and first["train/gradient_norm"] < 1e-5


def test_a_run_continues_exactly_and_only_with_its_teacher(folders, tmp_path):
    teacher, larger = tmp_path / "teacher", dict(model__num_layers=2, model__width=32)
    shutil.copytree(folders / "teacher", teacher)
    student = student_of(
        folders, teacher, mesh__fsdp=2, mesh__tensor=2, mesh__data=2, training__gradient_accumulation_steps=2
    )
    train_run(student, tmp_path / "whole")
    whole = losses_and_scores(tmp_path / "whole")
    assert {"validation/divergence", "validation/loss"} <= whole[1][0].keys()
    saved = saved_metadata(tmp_path / "whole")
    assert saved["companions"]["teacher"]["step"] == 4
    assert not any(32 in entry["shape"] for entry in saved["arrays"].values())  # none is the teacher's
    page, card = words_of_report(tmp_path / "whole")
    assert (
        "learned the probabilities that another model, its teacher, gives" in page and "Its teacher is teacher" in page
    )
    assert "steps and tokens, nats per token" in page and "Divergence from the teacher (nats per token)" in page
    assert '- "distillation"' in card and 'pipeline_tag: "text-generation"' in card

    # The teacher trains on, and a student that was killed goes on with the parameters that it started with.
    train_run(config_of(folders, training__duration="6 steps", **larger), teacher)
    shutil.rmtree(tmp_path / "whole" / "checkpoints" / "4")
    train_run(student, tmp_path / "whole")
    assert losses_and_scores(tmp_path / "whole") == whole

    def refusal():
        student.training.duration = "8 steps"
        run = command.open_run(student, tmp_path / "whole")
        with command.open_checkpoints(run) as checkpoints, pytest.raises(ConfigError) as caught:
            check_start(run.plan, run.data, checkpoints)
        return str(caught.value)

    (teacher / "checkpoints" / "4").rename(teacher / "checkpoints" / "5")
    assert "step 4, which this run reads, is gone; there are those of 2, 5, 6" in refusal()
    shutil.rmtree(teacher / "checkpoints" / "5")
    shutil.copytree(teacher / "checkpoints" / "6", teacher / "checkpoints" / "4")
    assert "are not those that this run has used" in refusal()


@pytest.mark.parametrize(
    "mesh",
    [
        dict(data=2, fsdp=2, tensor=2),
        pytest.param(dict(data=2, fsdp=2, zero1=True), marks=pytest.mark.exhaustive),
        pytest.param(dict(pipeline=2, fsdp=2), marks=pytest.mark.exhaustive),
        pytest.param(dict(context=2, data=2), marks=pytest.mark.exhaustive),
    ],
    ids=str,
)
def test_every_mesh_computes_the_same(tiny_config, tmp_path, mesh):
    teacher = tiny_config(model__width=32, model__num_layers=4)
    (tmp_path / "config.json").write_text(to_json(teacher))
    fields = PLAIN | dict(training__objective="distillation", training__teacher=str(tmp_path))
    fields |= dict(training__distillation_top_k=5, training__distillation_temperature=2.0)
    one = step_of(tiny_config(**fields), 1)
    divided = dict(training__gradient_accumulation_steps=2, training__loss_chunk=16)
    ways = np.prod([size for axis, size in mesh.items() if axis != "zero1"])
    mesh = {f"mesh__{axis}": size for axis, size in (dict(data=1) | mesh).items()}
    assert_same(one, step_of(tiny_config(**fields, **divided, **mesh), int(ways)))


@pytest.mark.parametrize(
    "fields, message",
    [
        (dict(training__teacher=""), r"training.teacher = '': .* needs the folder of a run"),
        (dict(training__teacher="nowhere"), r"training.teacher = '?nowhere'?: must be the folder of a run"),
        (dict(model__vocab_size=300), r"training.teacher = .*its model.vocab_size = 265 must be 300"),
        (dict(model__family="encoder"), r"model.family = 'encoder' is trained by masked"),
    ],
)
def test_a_teacher_that_does_not_fit_is_refused(folders, tmp_path, fields, message):
    with pytest.raises(ConfigError, match=message):
        command.open_run(student_of(folders, folders / "teacher", **fields), tmp_path / "run")


def test_a_teacher_with_another_tokenizer_is_refused(folders, tmp_path):
    other = ByteTokenizer((*CONTROL_TOKENS[:-1], "<|other|>"))
    write_prepared(tmp_path / "data", train=[[*b"some text", other.eos_id]] * 20, tokenizer=other)
    student = student_of(tmp_path, folders / "teacher", evaluation__every="")
    with pytest.raises(ConfigError, match=r"training.teacher = .*: the tokenizer has hash .*, but must have hash"):
        train_run(student, tmp_path / "run")
