"""A user's own family is planned, trained, saved, resumed and sampled without a change to the package."""

import jax
import numpy as np
import pytest
from prepared_folders import write_prepared
from training_runs import train_run

from gptjax import config as configs
from gptjax.config import ConfigError, default
from gptjax.data.facts import DataFacts
from gptjax.inference.generate import Generator
from gptjax.model.families import family_named
from gptjax.parallel.mesh import AbstractDevices
from gptjax.planning import plan
from gptjax.runs.comparison import read_runs
from gptjax.settings import freeze
from gptjax.tokenizer import ByteTokenizer
from gptjax.training.checkpoints.loading import load_for_inference, load_params
from gptjax.training.records.writers import read_metrics

BAG = "bag_of_tokens:BagFamily"


def bag_config(**training):
    config = default()
    config.model.update(family=BAG, width=16, num_heads=2, max_positions=64)
    config.data.update(sequence_length=16)
    config.optimizer.learning_rate = 0.03
    config.schedule.update(name="constant", warmup="0 steps")
    config.training.update(batch_size=16, gradient_accumulation_steps=2, **training)
    config.mesh.update(data=4, fsdp=2)
    config.checkpoint.update(every="4 steps")
    config.evaluation.update(every="4 steps", tokens=128, sample_every="4 steps", sample_tokens=4)
    config.logging.update(every="4 steps", tensorboard=False, plots=False)
    return config


@pytest.fixture
def train(tmp_path):
    tokenizer = ByteTokenizer()
    ids = [*tokenizer.encode("a banana; " * 40), tokenizer.eos_id]
    data = write_prepared(tmp_path / "data", train=[ids] * 2, validation=[ids], tokenizer=tokenizer)

    def make(name, duration):
        config = bag_config(duration=duration)
        config.data.path = str(data)
        configs.validate(config)
        return train_run(freeze(config), tmp_path / name)

    return make


def test_a_users_own_family_works_in_every_command(train):
    whole = train("whole", "8 steps")
    losses = [
        row["validation/loss"] for row in read_metrics(whole.workdir / "metrics.jsonl") if "validation/loss" in row
    ]
    assert losses[1] < losses[0] < np.log(whole.config.model.vocab_size)
    assert list(whole.workdir.glob("samples/*"))

    train("halves", "4 steps")
    halves = train("halves", "8 steps")
    params, metadata = load_params(halves.workdir)
    assert metadata["step"] == 8 and set(params) == {"words", "guess"}
    jax.tree.map(np.testing.assert_array_equal, params, load_params(whole.workdir)[0])
    # Reading a run does not import the family.
    assert {run.num_parameters for run in read_runs([whole.workdir])} == {None}

    with pytest.raises(ConfigError, match=r"model.family = .*--own_functions"):
        load_for_inference(whole.workdir)
    params, config, _ = load_for_inference(whole.workdir, own_functions=True)
    check_writing(params, config, whole.tokenizer)


def check_writing(params, config, tokenizer):
    """Generates greedily for several prompts at once and in pieces: each token is the likeliest one given the mean of
    all before."""
    prompts = ["a ban", "nana; a b", "x"]
    generator = Generator(params, config, tokenizer, weights="float32")
    texts = generator.generate(prompts, max_new_tokens=12, temperature=0.0)
    pieces = generator.generate(prompts, max_new_tokens=12, temperature=0.0, stop="never")
    for prompt, completion, in_pieces in zip(prompts, texts, pieces):
        tokens = [generator.begin_id, *tokenizer.encode(prompt)]
        for token in completion.tokens:
            assert token == int(np.argmax(params["words"][np.array(tokens)].mean(0) @ params["guess"]))
            tokens.append(token)
        assert completion.tokens == in_pieces.tokens
    narrow = Generator(params, config, tokenizer, weights="bfloat16").generate(
        prompts, max_new_tokens=4, temperature=0.0
    )
    assert all(completion.tokens for completion in narrow)


@pytest.mark.parametrize("optimizer", ["adamw", "muon", "adafactor"])
def test_it_can_be_planned_for_described_devices(optimizer):
    config = bag_config(duration="8 steps")
    config.optimizer.name = optimizer
    made = plan(config, DataFacts(100), AbstractDevices("gpu", 8, "NVIDIA H200"))
    assert (made.parameters.total, made.parameters.multiplied) == (2 * 16 * 100, 16 * 100)
    assert made.flops_per_token == {"causal": 6 * 1600, "full": 6 * 1600}
    assert made.abstract_state.params["guess"].sharding.shard_shape((16, 100)) == (8, 100)
    config.model.dropout = 0.1
    with pytest.raises(ConfigError, match=r"model.dropout = 0.1: a bag of tokens has none"):
        plan(config, DataFacts(100), AbstractDevices("gpu", 8, "NVIDIA H200"))


OWN = """
from gptjax.model.family import Family

class Partial(Family):
    def prefill(self): pass

def function(config): pass
"""


@pytest.mark.parametrize(
    "name, message",
    [
        ("decodr", r"model.family = 'decodr': expected one of .*did you mean decoder"),
        ("own_family:function", r"must be a subclass of gptjax.model.family.Family"),
        ("own_family:Partial", r"must define flops_per_token, module, step"),
    ],
)
def test_invalid_families_are_refused(name, message, tmp_path, monkeypatch):
    (tmp_path / "own_family.py").write_text(OWN)
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ConfigError, match=message):
        family_named(name)
