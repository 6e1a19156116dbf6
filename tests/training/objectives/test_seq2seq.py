"""A run on pairs learns to predict targets from sources, and generates what whole forward passes predict."""

import jax
import numpy as np
import pytest
from prepared_folders import write_prepared
from training_runs import train_run

from gptjax import config as configs
from gptjax.config import ConfigError, default
from gptjax.inference.generate import Generator
from gptjax.model.families import family_of
from gptjax.settings import freeze
from gptjax.tokenizer import ByteTokenizer
from gptjax.training.checkpoints.loading import load_params
from gptjax.training.objectives import make_objective
from gptjax.training.records.writers import read_metrics


def config_of(**fields):
    config = default()
    config.model.update(family="encoder_decoder", num_layers=1, width=32, num_heads=4, position="learned")
    config.data.update(sequence_length=16, source_length=24)
    config.training.update(objective="seq2seq", duration="12 steps", batch_size=16, label_smoothing=0.1)
    config.optimizer.learning_rate = 0.01
    config.mesh.update(data=4, fsdp=2)
    config.checkpoint.update(every="12 steps")
    config.evaluation.update(every="6 steps", tokens=0, sample_every="12 steps", sample_prompt="abc", sample_tokens=4)
    config.logging.update(every="6 steps", tensorboard=False, plots=False)
    with config.unlocked():
        config.update_from_flattened_dict({name.replace("__", "."): value for name, value in fields.items()})
    return config


@pytest.mark.exhaustive  # tests/configs/test_translation.py always trains on pairs, with its config
def test_a_run_on_pairs_learns_and_generates(tmp_path):
    tokenizer = ByteTokenizer()
    rng = np.random.default_rng(0)
    sources = ["".join(rng.choice(list("abcd"), rng.integers(2, 10))) for _ in range(200)]
    sides = [[*tokenizer.encode(side), tokenizer.eos_id] for source in sources for side in (source, "!" + source[:2])]
    data = write_prepared(tmp_path / "data", train=sides, validation=sides[:40], tokenizer=tokenizer, form="pairs")
    config = config_of(data__path=str(data))
    configs.validate(config)
    run = train_run(freeze(config), tmp_path / "run")
    rows = read_metrics(run.workdir / "metrics.jsonl")
    losses = [row["validation/loss"] for row in rows if "validation/loss" in row]
    assert losses[1] < losses[0] < np.log(run.config.model.vocab_size)
    assert list(run.workdir.glob("samples/*"))

    params = load_params(run.workdir)[0]
    prompts = ["abcd", "dcba"]  # of equal length, so one program serves both
    written = Generator(params, run.config, tokenizer).generate(prompts, max_new_tokens=5, temperature=0.0)
    apply = jax.jit(family_of(run.config.model).module().apply)
    for prompt, completion in zip(prompts, written):
        source = np.array([[*tokenizer.encode(prompt), tokenizer.eos_id]])
        target = np.array([[tokenizer.eos_id, *completion.tokens]])  # the begin token of these documents is EOS
        logits = apply({"params": params}, source, target)
        assert completion.tokens == np.argmax(logits[0, :-1], axis=-1).tolist()


@pytest.mark.parametrize(
    "fields, message",
    [
        (dict(model__family="decoder"), r"training.objective = 'seq2seq': .*model.family = 'decoder' is trained by"),
        (dict(training__objective="next_token"), r"'next_token': .*model.family = 'encoder_decoder' .*by seq2seq"),
        (dict(training__objective="completion"), r"'completion': .*model.family = 'encoder_decoder' .*by seq2seq"),
    ],
)
def test_a_family_that_the_objective_does_not_train_is_refused(fields, message):
    with pytest.raises(ConfigError, match=message):
        make_objective(freeze(config_of(**fields)))
