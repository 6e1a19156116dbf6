"""Small versions of the configs for pairs, from a file of pairs to a model that has learned them, with a stop in
between.

The pairs are synthetic: numbers in words, and their digits.
"""

import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from commands import run_command
from report_of_run import words_of_report
from training_runs import train_run

from gptjax import tokenizer
from gptjax.config.user_code import load_config
from gptjax.data.tokens import TokenSource
from gptjax.inference.generate import Generator
from gptjax.model.families import family_of
from gptjax.training.checkpoints.loading import load_for_inference
from gptjax.training.records.writers import read_metrics

ONES = "zero one two three four five six seven eight nine".split()
STEPS = 60


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("numbers")
    pairs = [(" ".join(ONES[int(digit)] for digit in str(number)), number) for number in range(600)]
    (folder / "numbers.tsv").write_text("".join(f"{words}\t{number}\n" for words, number in pairs))
    done = run_command(
        *("prepare", f"--pairs={folder / 'numbers.tsv'}", f"--output={folder / 'data'}", "--vocab_size=300"),
        *("--validation_documents=60", "--workers=1"),
    )
    assert done.returncode == 0, done.stderr
    assert "configs/translation.py:tiny " in done.stdout and "540" in done.stdout
    return folder / "data"


def trained(config, workdir):
    """The rows of metrics.jsonl by their step, without measured times."""
    train_run(config, workdir)
    names = ("train/loss", "validation/loss", "validation/tokens")
    return {row["step"]: {name: row.get(name) for name in names} for row in read_metrics(workdir / "metrics.jsonl")}


@pytest.mark.parametrize(
    "setting, resumes",
    [
        ("tiny", False),
        pytest.param("tiny", True, marks=pytest.mark.exhaustive),
        pytest.param("tiny-decoder", True, marks=pytest.mark.exhaustive),
    ],
)
def test_a_small_version_is_prepared_trained_and_resumed(folder, tmp_path, setting, resumes):
    config = load_config(f"configs/translation.py:{setting}")
    config.data.path = str(folder)
    config.model.num_layers = 1  # compiles faster
    config.training.duration = f"{STEPS} steps"
    config.checkpoint.every = config.evaluation.every = f"{STEPS // 2} steps"
    config.logging.update(every="10 steps", tensorboard=False, plots=False)
    whole = trained(config, tmp_path / "whole")
    assert whole[STEPS]["validation/loss"] < min(0.8 * whole[STEPS // 2]["validation/loss"], 2)
    targets = sum(len(read) for read in targets_of(folder))
    assert whole[STEPS]["validation/tokens"] == targets, "only the target's tokens are scored"

    page, card = words_of_report(tmp_path / "whole")
    does = "turns a source text into a target text" if setting == "tiny" else "writes a target after a source"
    assert does in page and "nats per token" in page and "split pairs size tokens bytes per token train 540 " in page
    assert ('tags:\n- "gptjax"\n- "jax"\n- "encoder-decoder"' in card) == (setting == "tiny")

    if resumes:
        shutil.copytree(tmp_path / "whole", tmp_path / "resumed")
        shutil.rmtree(tmp_path / "resumed" / "checkpoints" / str(STEPS))
        assert trained(config, tmp_path / "resumed") == whole

    params, settings, metadata = load_for_inference(tmp_path / "whole")
    tokens = tokenizer.load(tmp_path / "whole")
    generator = Generator(
        params, settings, tokens, begin_id=metadata["fingerprint"]["begin_id"], objective=settings.training.objective
    )
    apply = jax.jit(family_of(settings.model).module().apply)
    for written in generator.generate(["one two three", "five"], temperature=0, max_new_tokens=4):
        source = [*tokens.encode(written.prompt), tokens.eos_id]
        if setting == "tiny":
            first = apply({"params": params}, jnp.array([source]), jnp.array([[tokens.eos_id]]))
        else:
            first = apply({"params": params}, jnp.array([[tokens.eos_id, *source]]))
        logprobs_V = jax.nn.log_softmax(first[0, -1, : tokens.vocab_size])
        assert written.tokens[0] == logprobs_V.argmax() and abs(written.logprobs[0] - logprobs_V.max()) < 1e-4


def targets_of(folder):
    found = TokenSource(folder, "validation")
    offsets = found.document_offsets().astype(np.int64)
    return [found.take_runs(offsets[i : i + 1], np.diff(offsets)[i : i + 1]) for i in range(1, len(offsets) - 1, 2)]
