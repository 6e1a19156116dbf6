"""A classification head on an encoder or a decoder: its input, its initialization, learning, and equality on any
mesh."""

import runpy
import shutil
from collections import Counter
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from ml_collections import ConfigDict
from prepared_folders import write_prepared
from report_of_run import words_of_report
from training_runs import losses_and_scores

from gptjax import train as command
from gptjax.config import ConfigError, default, validate
from gptjax.model.families import family_of
from gptjax.runs.start import check_start
from gptjax.settings import freeze
from gptjax.tokenizer import ByteTokenizer
from gptjax.tokenizer.training import train_characters
from gptjax.training.checkpoints.loading import load_params
from gptjax.training.interrupt import StopRequest
from gptjax.training.objectives import make_objective

pytestmark = pytest.mark.slow

TOKENIZER = ByteTokenizer()
LABELS = ("ham", "spam")


def texts(count, first=0):
    """Texts of labels 0, 1, …, which differ in one character somewhere in texts of various lengths."""
    return [f"{'ab' * (i % 7)}{'xy'[i % 2]}{'cd' * (i % 5)}" for i in range(first, first + count)]


@pytest.fixture
def folders(tmp_path):
    ids = [[*TOKENIZER.encode(text), TOKENIZER.eos_id] for text in texts(64)]
    made = dict(train=ids[:48], validation=ids[48:], tokenizer=TOKENIZER)
    write_prepared(tmp_path / "labelled", labels=LABELS, **made)
    write_prepared(tmp_path / "text", **made)
    return tmp_path


@pytest.fixture
def config_of(folders):
    def make(**fields):
        config = ConfigDict(default())
        config.model.update(family="classifier", num_layers=2, layers="scan", width=16, num_heads=2, max_positions=24)
        config.data.update(path=str(folders / "labelled"), sequence_length=24)
        config.optimizer.learning_rate = 0.01
        config.schedule.update(name="constant", warmup="0 steps")
        config.training.update(objective="classification", duration="24 steps", batch_size=16)
        config.mesh.update(data=8)
        config.checkpoint.update(every="12 steps")
        config.evaluation.update(every="12 steps", tokens=0)
        config.logging.update(every="1 steps", tensorboard=False, plots=False)
        config.update_from_flattened_dict(fields)
        validate(config)
        return config

    return make


def train(config, workdir, only_start=False):
    """(training losses, scores, the parameters before the first step, notes of the start)"""
    run = command.open_run(freeze(config), workdir)
    with StopRequest(every=None) as stop, jax.set_mesh(run.mesh), command.open_checkpoints(run) as checkpoints:
        check_start(run.plan, run.data, checkpoints)
        state, interval, notes = command.start(run, checkpoints)
        before = jax.device_get(state.params)
        if only_start:
            return [], [], before, notes
        command.train(run, checkpoints, state, interval, notes, stop)
    return *losses_and_scores(workdir), before, notes


def test_a_run_learns_and_is_the_same_on_a_mesh_and_after_a_resume(config_of, folders):
    shallow = {"model.num_layers": 1, "training.class_weights": "spam=3"}
    losses, scores, *_ = train(config_of(**shallow), folders / "one")
    assert scores[-1]["validation/accuracy"] == scores[-1]["validation/macro_f1"] == 1.0
    assert scores[-1]["validation/texts"] == 16 and losses[-1] < 0.5 < losses[0]
    page, card = words_of_report(folders / "one")
    assert (
        "labels texts" in page and "nats per text" in page and "Validation macro-F1" in page and "Samples" not in page
    )
    assert 'pipeline_tag: "text-classification"' in card and "gptjax classify --workdir" in card

    other = shallow | {
        "mesh.data": 2,
        "mesh.fsdp": 2,
        "mesh.tensor": 2,
        "training.gradient_accumulation_steps": 2,
        "training.duration": "12 steps",
    }
    mesh_losses, mesh_scores, *_ = train(config_of(**other), folders / "mesh")
    np.testing.assert_allclose(mesh_losses[:4], losses[:4], rtol=2e-5)
    np.testing.assert_allclose(mesh_scores[0]["validation/loss"], scores[0]["validation/loss"], rtol=1e-2)

    shutil.copytree(folders / "one", folders / "halves")
    shutil.rmtree(folders / "halves/checkpoints/24")
    resumed, resumed_scores, *_ = train(config_of(**shallow), folders / "halves")
    assert resumed == losses and resumed_scores == scores


@pytest.mark.parametrize(
    "body, objective", [("encoder", "masked"), pytest.param("decoder", "next_token", marks=pytest.mark.exhaustive)]
)
def test_a_pretrained_run_initializes_the_body_and_the_head_is_new(config_of, folders, body, objective):
    pretraining = {"model.family": body, "training.objective": objective, "data.path": str(folders / "text")}
    pretraining["evaluation.every"] = ""
    train(config_of(**pretraining, **{"training.duration": "1 steps"}), folders / "pretrained")
    classifier = {"model.body": body, "training.init_from": str(folders / "pretrained"), "evaluation.every": ""}
    last_block = runpy.run_path("configs/classifier.py")["LAST_BLOCK"]
    config = config_of(**classifier, **{"optimizer.rules": last_block, "training.duration": "2 steps"})
    *_, before, notes = train(config, folders / "run")
    jax.tree.map(np.testing.assert_array_equal, before["body"], load_params(folders / "pretrained")[0])
    assert before["head"].shape == (16, 2) and before["head"].any()
    assert notes[0].endswith("pretrained, step 1 for the body; the rest is new") and len(notes) == 1

    # Only the last block, the last norm and the head are trained.
    after, _ = load_params(folders / "run")
    changed = jax.tree.map(lambda a, b: np.abs(a - b).reshape(len(a), -1).max(1) > 0, before, after)
    assert not changed["body"]["embedding"].any() and changed["head"].all() and changed["head_bias"].all()
    assert changed["body"]["final_norm"]["scale"].any()
    layers = jax.tree.leaves(changed["body"]["layers"])
    assert not any(layer[0] for layer in layers) and all(layer[1] for layer in layers)

    if body == "decoder":
        return
    # A classifier initializes all of another one, including the head.
    again = config_of(**{"model.body": body, "training.init_from": str(folders / "run")})
    *_, whole, _ = train(again, folders / "again", only_start=True)
    jax.tree.map(np.testing.assert_array_equal, whole, after)


LOGITS = jnp.array([[1.0, -2.0, 0.5], [0.25, 0.75, -1.0], [-3.0, 2.0, 0.0], [0.5, 0.5, 2.5], [9.0, 9.0, 9.0]])
PYTORCH = {  # what torch.nn.functional.cross_entropy gives for the first four rows
    "unweighted": ({}, [1.0, 1.0, 1.0], 0.8009428381919861),
    "weighted": ({}, [0.5, 2.0, 3.0], 0.9667031764984131),
    "smoothed": ({"training.label_smoothing": 0.1}, [1.0, 1.0, 1.0], 0.8967761993408203),
}


@pytest.mark.parametrize("fields, weights_C, expected", PYTORCH.values(), ids=PYTORCH)
def test_the_loss_is_that_of_pytorch_and_the_scores_have_no_weights(config_of, fields, weights_C, expected):
    objective = make_objective(freeze(config_of(**fields)))
    model = SimpleNamespace(apply=lambda *_: (LOGITS, {}))
    labels = np.array([0, 2, 1, 2, 0])
    weights = np.array(weights_C)[labels] * [1, 1, 1, 1, 0]  # the last row is padding
    batch = {"tokens": None, "segments": None, "labels": jnp.array(labels), "weights": jnp.array(weights, jnp.float32)}
    loss, figures = objective.loss(model, None, batch)
    np.testing.assert_allclose(loss / objective.weight(batch), expected, rtol=1e-6)
    assert objective.metrics(figures)["accuracy"] == 0.75
    confusion = objective.evaluation(model, None)(None, batch)["confusion"]
    np.testing.assert_array_equal(confusion, [[1, 0, 0], [0, 1, 0], [0, 1, 1]])


def test_only_training_rows_have_the_weights_of_their_labels(config_of):
    objective = make_objective(freeze(config_of(**{"training.class_weights": "spam=3"})))
    train, held_out = (objective.open_data(split, 16).batch(0, np.arange(16)) for split in ("train", "validation"))
    np.testing.assert_array_equal(train["weights"], 1 + 2 * train["labels"])
    assert 0 < train["labels"].sum() < 16 and (held_out["weights"] == 1).all()


@pytest.mark.parametrize("body, pooling", [("encoder", "auto"), ("encoder", "first"), ("decoder", "auto")])
def test_the_head_reads_the_text_but_not_its_padding(config_of, body, pooling):
    model = config_of(**{"model.body": body, "model.pooling": pooling, "model.num_classes": 2}).model
    family = family_of(
        type(family_of(freeze(config_of()).model)).resolve(model, platform="cpu", vocab_size=20, sequence_length=8)
    )
    params = family.init_params(jax.random.key(0))
    apply = jax.jit(lambda tokens, segments: family.module().apply({"params": params}, tokens, segments)[0])
    tokens, segments = jnp.array([[0, 3, 4, 5, 0, 0]]), jnp.array([[1, 1, 1, 1, 0, 0]])
    expected = apply(tokens, segments)
    np.testing.assert_allclose(apply(tokens.at[0, 4:].set(9), segments), expected, atol=1e-6)
    np.testing.assert_allclose(apply(tokens[:, :4], segments[:, :4]), expected, atol=1e-6)
    for place in range(4):
        assert np.abs(apply(tokens.at[0, place].set(9), segments) - expected).max() > 1e-6


def test_weights_without_labels_and_a_single_label_are_refused(config_of, folders):
    with pytest.raises(ConfigError, match=r"training.class_weights = 'balanced': must be empty with training.objectiv"):
        config_of(**{"training.objective": "masked", "training.class_weights": "balanced"})
    write_prepared(folders / "one", train=[[1, 2], [3]], labels=["ham"], tokenizer=TOKENIZER)
    with pytest.raises(ConfigError, match="all texts have the label 'ham': a classifier needs at least 2"):
        command.open_run(freeze(config_of(**{"data.path": str(folders / "one")})), folders / "run")


@pytest.mark.parametrize(
    "fields, message",
    [
        ({"data.path": "text"}, r"data.path = .*/text.* reads labelled"),
        ({"model.num_classes": 3}, r"model.num_classes = 3: must be 0 or 2, as many as the labels of .*ham, spam"),
        ({"model.num_classes": 1}, r"model.num_classes = 1: must be 0 or 2"),
        (
            {"training.class_weights": "eggs=2"},
            r"training.class_weights = 'eggs=2': 'eggs' is not a label of .*ham, spam",
        ),
        ({"training.class_weights": "spam=0"}, r"the weight of 'spam' must be a positive number, not '0'"),
        ({"training.class_weights": "spam=2,ham"}, r"training.class_weights = 'spam=2,ham': expected balanced, or"),
        (
            {"training.class_weights": "even"},
            r"training.class_weights = 'even': expected balanced, or weights of labels",
        ),
        ({"model.body": "classifier"}, r"model.body = 'classifier': expected one of|must be a model of another"),
        ({"model.family": "encoder"}, r"'classification': a model of model.family = 'encoder' is trained by masked"),
        ({"training.objective": "masked"}, r"model.family = 'classifier' is trained by classification"),
    ],
)
def test_contradictory_settings_are_refused(config_of, folders, fields, message):
    fields = {name: str(folders / value) if name == "data.path" else value for name, value in fields.items()}
    with pytest.raises(ConfigError, match=message):
        command.open_run(freeze(config_of(**fields)), folders / "run")


def test_runs_that_cannot_initialize_a_body_are_refused(config_of, folders):
    pretraining = {"model.family": "decoder", "training.objective": "next_token", "data.path": str(folders / "text")}
    train(config_of(**pretraining, **{"training.duration": "1 steps"}), folders / "pretrained")
    start = {"training.init_from": str(folders / "pretrained")}
    with pytest.raises(ConfigError, match=r"model.family = 'decoder' cannot start a classifier of model.body = 'encod"):
        train(config_of(**start), folders / "run")
    with pytest.raises(ConfigError, match=r"model.width = 32: must be 16, as in training.init_from = "):
        train(config_of(**start, **{"model.body": "decoder", "model.width": 32}), folders / "run")

    other = train_characters(Counter("".join(texts(16))))
    ids = [[*other.encode(text), other.eos_id] for text in texts(16)]
    write_prepared(folders / "other", train=ids, validation=ids, tokenizer=other, labels=LABELS)
    with pytest.raises(ConfigError, match=r"training.init_from = .*: the tokenizer has hash"):
        train(config_of(**start, **{"model.body": "decoder", "data.path": str(folders / "other")}), folders / "run")
