"""experiments/from_scratch/gpt.py and pretraining.py compute what the model and its training compute."""

import functools
from pathlib import Path

import gpt as own
import jax
import jax.numpy as jnp
import numpy as np
import pretraining
import pytest

from gptjax.config.user_code import load_config
from gptjax.model.families import family_of
from gptjax.model.resolve import resolve_model
from gptjax.training.cross_entropy import cross_entropy

ROOT = Path(__file__).parents[3]
SIZES = dict(vocab=19, positions=8, width=16, layers=2, heads=2)


def decoder(sizes, **changes):
    """The decoder of configs/gpt2.py in this size."""
    model = load_config(str(ROOT / "configs/gpt2.py:124m")).model
    model.update(vocab_size=sizes["vocab"], max_positions=sizes["positions"], width=sizes["width"])
    model.update(num_layers=sizes["layers"], num_heads=sizes["heads"], **changes)
    return family_of(resolve_model(model, platform="cpu", vocab_size=0, sequence_length=sizes["positions"]))


@pytest.fixture(scope="module")
def params():
    """Parameters of which none has its neutral initial value."""
    random = np.random.default_rng(0)
    made = jax.eval_shape(functools.partial(own.init, **SIZES), jax.random.key(0))
    return jax.tree.map(lambda x: random.normal(0.0, 0.5, x.shape).astype(np.float32), made)


@pytest.fixture(scope="module")
def tokens_BT():
    return np.random.default_rng(1).integers(0, SIZES["vocab"], (2, 8), np.int32)


@pytest.mark.parametrize("tied", [True, pytest.param(False, marks=pytest.mark.exhaustive)])
def test_logits_loss_and_gradients_are_those_of_the_decoder_and_its_training(params, tokens_BT, tied):
    family = decoder(SIZES, tied_embeddings=tied)
    model = family.module()
    if not tied:
        params = params | {"head": params["embedding"][::-1].T}
    made = jax.eval_shape(family.init_params, jax.random.key(0))
    assert jax.tree.map(np.shape, params) == jax.tree.map(np.shape, made)
    targets_BT = np.roll(tokens_BT, -1, axis=1)

    def loss_and_logits(params):
        x_BTD = model.apply({"params": params}, tokens_BT, method="hidden")[0]
        head_DV = model.apply({"params": params}, method="output_matrix")
        loss = cross_entropy(x_BTD, head_DV, targets_BT, jnp.ones((2, 8)))[0] / 16
        return loss, model.apply({"params": params}, x_BTD, method="logits")

    def own_loss_and_logits(params):
        return pretraining.loss_of(params, tokens_BT, targets_BT), own.gpt(params, tokens_BT)

    @jax.jit
    def both(params):
        return [jax.value_and_grad(f, has_aux=True)(params) for f in (own_loss_and_logits, loss_and_logits)]

    jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-4), *both(params))


def test_the_parameters_are_as_many_as_published():
    sizes = jax.eval_shape(functools.partial(own.init, **own.GPT2_124M), jax.random.key(0))
    assert own.count(sizes) == 124_439_808  # transformers counts as many in its GPT2LMHeadModel
    # The book's model has no biases of queries, keys and values, and its own output matrix.
    family = decoder(own.GPT2_124M, bias="output+feedforward+norm", tied_embeddings=False)
    books = jax.eval_shape(family.init_params, jax.random.key(0))
    assert own.count(books) == 163_009_536 and own.count(books) - 50257 * 768 == 124_412_160


@pytest.mark.exhaustive  # its loss and gradients are compared above
def test_the_plain_loop_learns_a_text_by_heart_and_writes_it(tmp_path, monkeypatch, capsys):
    (tmp_path / "text.txt").write_text("the cat sat on the mat. " * 40)
    sizes = ["--pieces=10", "--length=16", "--width=32", "--layers=1", "--epochs=40", "--prompt=the cat"]
    monkeypatch.setattr("sys.argv", ["pretraining.py", f"--input={tmp_path / 'text.txt'}", *sizes])
    pretraining.main()
    *_, last_epoch, written = capsys.readouterr().out.splitlines()
    assert float(last_epoch.split()[3]) < 0.7
    assert written.startswith("the cat sat on the mat. the")
