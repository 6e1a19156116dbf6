"""Masked-token pretraining is the same on any mesh, in micro-batches and after a kill. All runs are evaluated on the
same hidden tokens."""

import json
import shutil

import numpy as np
import pytest
from ml_collections import ConfigDict
from prepared_folders import write_prepared
from training_runs import losses_and_scores, train_run

from gptjax import train as command
from gptjax.config import ConfigError, default, validate
from gptjax.inference.generate import Generator
from gptjax.settings import freeze
from gptjax.tokenizer import ByteTokenizer
from gptjax.training.checkpoints.loading import load_for_inference, load_params
from gptjax.training.objectives import make_objective


@pytest.fixture
def config_of(tmp_path):
    tokenizer = ByteTokenizer()
    documents = [
        [*tokenizer.encode(f"the {word} fox runs; " * 9), tokenizer.eos_id] for word in ("quick", "red", "old")
    ]
    data = write_prepared(tmp_path / "data", train=documents * 3, validation=documents, tokenizer=tokenizer)

    def make(mesh=None, **fields):
        config = ConfigDict(default())
        config.model.update(family="encoder", num_layers=1, width=16, num_heads=2)
        config.data.update(path=str(data), sequence_length=32, windows="packed")
        config.optimizer.learning_rate = 0.01
        config.schedule.update(name="constant", warmup="0 steps")
        config.training.update(objective="masked", duration="4 steps", batch_size=16)
        config.mesh.update(mesh or dict(data=8))
        config.checkpoint.update(every="2 steps")
        config.evaluation.update(every="2 steps", tokens=0)
        config.logging.update(every="1 steps", tensorboard=False, plots=False)
        config.update_from_flattened_dict(fields)
        validate(config)
        return config

    return make


def train(config, workdir):
    train_run(freeze(config), workdir)
    return losses_and_scores(workdir)


@pytest.mark.exhaustive  # test_classification.py always compares runs of an encoder
def test_a_run_is_the_same_on_a_mesh_in_micro_batches_and_after_a_resume(config_of, tmp_path):
    losses, scores = train(config_of(), tmp_path / "one")
    assert losses[-1] < losses[0] - 0.2
    assert scores[1]["validation/loss"] < scores[0]["validation/loss"]
    assert 0 < scores[1]["validation/accuracy"] < 1
    pieces = {"training.gradient_accumulation_steps": 2, "training.loss_chunk": 64}
    others, other_scores = train(config_of(mesh=dict(data=2, fsdp=2, tensor=2), **pieces), tmp_path / "mesh")
    np.testing.assert_allclose(others, losses, rtol=2e-5)
    np.testing.assert_allclose(other_scores[1]["validation/loss"], scores[1]["validation/loss"], rtol=2e-5)
    assert abs(other_scores[1]["validation/accuracy"] - scores[1]["validation/accuracy"]) < 2e-3

    shutil.copytree(tmp_path / "one", tmp_path / "halves")
    shutil.rmtree(tmp_path / "halves/checkpoints/4")
    resumed, resumed_scores = train(config_of(), tmp_path / "halves")
    assert resumed == losses
    assert resumed_scores == scores


def test_an_encoder_has_a_mask_token_and_does_not_generate(config_of, tmp_path):
    train(config_of(**{"training.duration": "1 steps"}), tmp_path / "run")
    params, config, metadata = load_for_inference(tmp_path / "run")
    assert params["embedding"].shape[0] == config.model.vocab_size == ByteTokenizer().vocab_size + 1
    assert metadata["fingerprint"]["rewriting"]["mask_id"] == ByteTokenizer().vocab_size
    assert json.dumps(metadata["judged_by"]) == '["validation/loss", false]'
    with pytest.raises(ConfigError, match=r"model.family = 'encoder': such a model reads text and cannot write it"):
        Generator(params, config, ByteTokenizer())
    assert load_params(tmp_path / "run", "best")[1]["step"] == 1


@pytest.mark.parametrize(
    "fields, message",
    [
        ({"model.vocab_size": 265}, r"model.vocab_size = 265: must be 0 or at least 266"),
        ({"model.family": "decoder"}, r"'masked': a model of model.family = 'decoder' is trained by next_token"),
        (
            {"training.objective": "next_token"},
            r"'next_token': a model of model.family = 'encoder' is trained by masked",
        ),
        ({"evaluation.sample_every": "2 steps"}, r"evaluation.sample_every = '2 steps': must be ''"),
    ],
)
def test_impossible_settings_are_refused_before_compiling(config_of, tmp_path, fields, message):
    with pytest.raises(ConfigError, match=message):
        command.open_run(freeze(config_of(**fields)), tmp_path / "run")


@pytest.mark.parametrize("fraction", [0.0, 1.5])
def test_the_fraction_of_hidden_tokens_has_limits(config_of, fraction):
    with pytest.raises(ConfigError, match=rf"training.mask_fraction = {fraction}: must be"):
        config_of(**{"training.mask_fraction": fraction})


def test_a_set_without_text_cannot_be_scored(config_of):
    with pytest.raises(ConfigError, match="no token of text to hide"):
        make_objective(freeze(config_of())).scores_of({"nll": 0.0, "tokens": 0.0})
