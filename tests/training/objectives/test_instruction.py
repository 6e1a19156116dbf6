"""Training on conversations: the loss of each is its own, on any mesh, and a base run gains control tokens."""

import jax
import numpy as np
import pytest
from conversation_folder import random_conversations, write_conversations
from ml_collections import ConfigDict
from prepared_folders import write_prepared
from training_runs import losses_and_scores, train_run

from gptjax import train as command
from gptjax.config import ConfigError, default, validate
from gptjax.config.base_run import start_from_run
from gptjax.conversation import Message
from gptjax.runs.start import check_start
from gptjax.settings import freeze
from gptjax.tokenizer import ByteTokenizer
from gptjax.training.checkpoints.loading import load_params
from gptjax.training.objectives.instruction import colored

BYTES = ByteTokenizer()


def config_of(path, **fields):
    config = ConfigDict(default())
    config.model.update(num_layers=1, width=16, num_heads=2, layers="scan")
    config.data.update(path=str(path), sequence_length=192)
    config.optimizer.learning_rate = 0.01
    config.schedule.update(name="constant", warmup="0 steps")
    config.training.update(objective="instruction", duration="6 steps", batch_size=8)
    config.mesh.update(data=8)
    config.checkpoint.update(every="3 steps")
    config.evaluation.update(every="3 steps", tokens=0)
    config.logging.update(every="1 steps", tensorboard=False, plots=False)
    config.update_from_flattened_dict(fields)
    validate(config)
    return config


@pytest.fixture(scope="module")
def chats(tmp_path_factory):
    """(folder, renderer)"""
    return write_conversations(tmp_path_factory.mktemp("chats") / "data", random_conversations(60, words=4))


def opened(config, workdir):
    return command.open_run(freeze(config), workdir)


def eight_times(row):
    """A batch for all devices."""
    return {name: np.repeat(array, 8, axis=0) for name, array in row.items()}


def test_the_loss_of_a_conversation_does_not_depend_on_its_row(chats, tmp_path):
    run = opened(config_of(chats[0]), tmp_path)
    objective, model = run.plan.trainer.objective, run.plan.trainer.model
    params = jax.tree.map(
        lambda x: jax.random.normal(jax.random.key(x.size), x.shape) / 4, run.plan.abstract_state.params
    )
    loss = jax.jit(lambda batch: objective.loss(model, params, batch)[1]["loss"])
    packed, alone = {}, {}
    with jax.set_mesh(run.mesh):
        for step in range(3):
            row = run.data.batch(step, np.array([0]))
            for segment in range(1, row["segments"].max() + 1):
                here = row["segments"] == segment
                key = tuple(row["targets"][here])
                packed[key] = float(loss(eight_times(row | {"weights": row["weights"] * here})))
                single = {name: np.zeros_like(array) for name, array in row.items()}
                for name in single:
                    single[name][0, : here.sum()] = row[name][here]
                single["segments"] = np.minimum(single["segments"], 1)
                alone[key] = float(loss(eight_times(single)))
    assert len(packed) > 3
    np.testing.assert_allclose([packed[key] for key in alone], list(alone.values()), rtol=1e-5)


def test_a_run_learns_and_is_the_same_on_a_mesh(chats, tmp_path, capsys):
    run = train_run(freeze(config_of(chats[0])), tmp_path / "one")
    command.show_settings(run)
    assert "the loss is on" in (shown := capsys.readouterr().out) and "⟦" in shown
    losses, scores = losses_and_scores(tmp_path / "one")
    assert losses[-1] < losses[0] - 0.3 and scores[-1]["validation/loss"] < scores[0]["validation/loss"]

    other = {"mesh.data": 2, "mesh.fsdp": 2, "mesh.tensor": 2, "training.gradient_accumulation_steps": 2}
    other |= {"training.duration": "3 steps", "evaluation.every": ""}
    train_run(freeze(config_of(chats[0], **other)), tmp_path / "mesh")
    np.testing.assert_allclose(losses_and_scores(tmp_path / "mesh")[0], losses[:3], rtol=2e-5)


def test_the_mask_is_shown(chats):
    _, renderer = chats
    rendered = renderer.render([Message("user", "Hi"), Message("assistant", "é")])
    batch = {"targets": rendered.ids[None], "weights": rendered.supervised[None], "segments": [[1] * len(rendered.ids)]}
    text = colored(batch, renderer.tokenizer)
    assert text.plain == "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n⟦é<|im_end|>⟧\n"
    assert [str(span.style) for span in text.spans] == ["dim", "green", "dim"]


@pytest.mark.parametrize("tied", [pytest.param(True, marks=pytest.mark.exhaustive), False])
def test_a_base_run_gains_the_control_tokens_of_the_template(tmp_path, tied):
    documents = [[*BYTES.encode(f"Text {n}."), BYTES.eos_id] for n in range(40)]
    write_prepared(tmp_path / "text", train=documents, tokenizer=BYTES)
    fields = {"training.objective": "next_token", "training.duration": "1 steps", "evaluation.every": ""}
    base = config_of(tmp_path / "text", **fields, **{"model.tied_embeddings": tied, "data.sequence_length": 128})
    train_run(freeze(base), tmp_path / "base")
    old, _ = load_params(tmp_path / "base")

    conversations = random_conversations(30, words=3)
    folder, renderer = write_conversations(
        tmp_path / "chats", conversations, **{"tokenizer.name": str(tmp_path / "base")}
    )
    assert renderer.tokenizer.vocab_size == BYTES.vocab_size + 2
    config = config_of(folder, **{"evaluation.every": "", "training.duration": "1 steps"})
    start_from_run(config, str(tmp_path / "base"))
    assert config.data.sequence_length == 128 and config.model.width == 16
    run = opened(config, tmp_path / "run")
    with jax.set_mesh(run.mesh), command.open_checkpoints(run) as checkpoints:
        check_start(run.plan, run.data, checkpoints)
        state, _, notes = command.start(run, checkpoints)
    new = jax.device_get(state.params)
    assert notes[1] == "new control tokens: <|im_start|>, <|im_end|>; 2 rows for them begin near the mean of all others"
    assert len(notes) == 2
    V = BYTES.vocab_size
    grown = {"embedding": 0} if tied else {"embedding": 0, "head": 1}
    for name, axis in grown.items():
        (before, added) = np.split(new[name], [V], axis)
        np.testing.assert_array_equal(before, old[name])
        assert added.shape[axis] == 2
        distance = np.abs(added - old[name].mean(axis, keepdims=True))
        assert 0 < distance.max() < 0.12 and not np.array_equal(*np.split(added, 2, axis))
    rest = {name: value for name, value in new.items() if name not in grown}
    jax.tree.map(np.testing.assert_array_equal, rest, {name: old[name] for name in rest})

    other, _ = write_conversations(tmp_path / "other", conversations, **{"tokenizer.name": "char"})
    run = opened(config_of(other, **{"training.init_from": str(tmp_path / "base"), "evaluation.every": ""}), tmp_path)
    with jax.set_mesh(run.mesh), command.open_checkpoints(run) as checkpoints:
        with pytest.raises(ConfigError, match="the tokenizer has hash"):
            check_start(run.plan, run.data, checkpoints)
