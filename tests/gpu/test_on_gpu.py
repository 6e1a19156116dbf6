"""A GPU computes the same as the CPU in float32: attention, losses, training, generation, checkpoints.

`python experiments/gpu_day/run.py --only=checks` runs them on a machine with a GPU. Those that need one are skipped
elsewhere; the others run on the CPU, too, so that errors in them are found early.
"""

import functools
import os
import random

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from killed_runs import Runs, losses

from gptjax.config import default
from gptjax.data.facts import DataFacts
from gptjax.inference.generate import Generator
from gptjax.model.attention import attention
from gptjax.model.decoder import Decoder
from gptjax.model.families import family_of
from gptjax.model.resolve import resolve_model
from gptjax.planning import plan
from gptjax.training.checkpoints.manager import Checkpoints
from gptjax.training.checkpoints.run_metadata import run_metadata


def relative(found, truth):
    found, truth = (np.asarray(x, np.float64) for x in (found, truth))
    return np.linalg.norm(found - truth) / np.linalg.norm(truth)


def outputs_and_gradients(q, k, v, **options):
    def total(q, k, v):
        out = attention(q, k, v, **options).astype(jnp.float32)
        return (out * jnp.cos(jnp.arange(out.size).reshape(out.shape))).sum(), out

    (_, out), gradients = jax.jit(jax.value_and_grad(total, argnums=(0, 1, 2), has_aux=True))(q, k, v)
    return out, *gradients


@pytest.mark.parametrize("backend", ["cudnn", "xla"])
@pytest.mark.parametrize("kind", ["causal", "windowed", "packed"])
@pytest.mark.parametrize("heads, kv_heads, width", [(4, 4, 64), (4, 2, 128)])
def test_attention_and_its_gradients_equal_the_references(request, cpu, backend, kind, heads, kv_heads, width):
    if backend == "cudnn":
        request.getfixturevalue("gpu")
        if kind == "packed":
            pytest.skip("cuDNN cannot keep packed documents apart: refused, see tests/model/test_attention.py")
    length = 128
    sizes = (heads, kv_heads, kv_heads)
    operands = [
        jax.random.normal(key, (2, length, count, width), jnp.bfloat16)
        for key, count in zip(jax.random.split(jax.random.key(0), 3), sizes)
    ]
    options = {"windowed": {"window": 48}}.get(kind, {})
    segments = jnp.broadcast_to(jnp.arange(length) // 50, (2, length)) if kind == "packed" else None
    found = outputs_and_gradients(*operands, backend=backend, segments_BT=segments, **options)
    with jax.default_device(cpu):
        exact = [jax.device_put(np.asarray(x, np.float32), cpu) for x in operands]
        segments = None if segments is None else jax.device_put(np.asarray(segments), cpu)
        truth = outputs_and_gradients(*exact, backend="reference", segments_BT=segments, **options)
    assert all(relative(mine, theirs) < 0.01 for mine, theirs in zip(found, truth))


def test_automatic_settings_are_bfloat16_and_cudnn_on_a_gpu(gpu):
    section = default().model
    resolved = resolve_model(section, platform=gpu.platform, vocab_size=32, sequence_length=128)
    assert (resolved.dtype, resolved.attention) == ("bfloat16", "cudnn")


@functools.cache
def trained(config, device, steps=10):
    """Returns (losses, gradient norms, trainer, state) after `steps` steps on the same tokens."""
    trainer = plan(config, DataFacts(vocab_size=32), [device]).trainer
    with jax.set_mesh(trainer.mesh):
        shapes = trainer.abstract_batch()
        step = trainer.compile_train_step(shapes)
        tokens = np.random.default_rng(0).integers(32, size=shapes["tokens"].shape)
        values = {"tokens": tokens, "targets": np.roll(tokens, -1, axis=-1), "weights": np.ones(tokens.shape)}
        batch = {name: jax.device_put(values[name].astype(s.dtype), s.sharding) for name, s in shapes.items()}
        params = family_of(config.model).init_params(jax.random.key(0))
        start = jax.tree.map(np.asarray, params)  # the same on every device
        state, rows = trainer.init(start), []
        for _ in range(steps):
            state, metrics = step(state, batch)
            rows.append([float(metrics["train/loss"]), float(metrics["train/gradient_norm"])])
    return *np.array(rows).T, trainer, state


@pytest.fixture
def trainable(tiny_config):
    """dtype → the config of a model that learns within ten steps."""

    def make(dtype="float32"):
        return tiny_config(
            model__dtype=dtype, model__num_layers=1, model__width=64, data__sequence_length=32, training__batch_size=8,
            training__duration="10 steps", optimizer__learning_rate=3e-3,
        )  # fmt: skip

    return make


def test_ten_steps_in_bfloat16_are_close_to_those_in_float32_on_the_cpu(trainable, cpu):
    here = jax.devices()[0]
    loss, norm, _, _ = trained(trainable("bfloat16" if here.platform == "gpu" else "float32"), here)
    true_loss, true_norm, _, _ = trained(trainable(), cpu)
    assert true_loss[-1] < 0.9 * true_loss[0]
    np.testing.assert_allclose(loss, true_loss, rtol=0.01)
    np.testing.assert_allclose(norm[:5], true_norm[:5], rtol=0.05)


def test_greedy_text_equals_the_choice_of_a_whole_forward_pass(trainable):
    config = trainable()
    params = family_of(config.model).init_params(jax.random.key(1))
    prompt = list(range(3, 10))

    class Tokens:
        vocab_size, bos_id, eos_id = 32, None, None

        def decode_bytes(self, tokens):
            return b"x" * len(tokens)

        def decode(self, tokens):
            return "x" * len(tokens)

    (completion,) = Generator(params, config, Tokens()).generate([prompt], max_new_tokens=24, temperature=0.0)
    tokens = prompt + completion.tokens
    logits = jax.jit(Decoder(config.model).apply)({"params": params}, jnp.asarray([tokens]))[0]
    assert np.argmax(logits[len(prompt) - 1 : -1], axis=-1).tolist() == completion.tokens


def test_a_checkpoint_is_restored_bit_for_bit(trainable, tmp_path):
    config = trainable()
    _, _, trainer, state = trained(config, jax.devices()[0], steps=3)
    with jax.set_mesh(trainer.mesh):
        saved = jax.tree.map(np.asarray, state)
        with Checkpoints(tmp_path, config.checkpoint, lambda text: int(text.split()[0])) as checkpoints:
            checkpoints.save(3, state, run_metadata(config, {"tokenizer_hash": "0"}, 0))
        with Checkpoints(tmp_path, config.checkpoint, lambda text: int(text.split()[0])) as checkpoints:
            restored, _ = checkpoints.restore(trainer.abstract_state)
    assert all(leaf.devices() == {jax.devices()[0]} for leaf in jax.tree.leaves(restored))
    jax.tree.map(np.testing.assert_array_equal, jax.tree.map(np.asarray, restored), saved)


def test_a_killed_run_continues_bit_for_bit(gpu, tmp_path):
    runs = Runs(tmp_path, steps=40, platforms=os.environ["JAX_PLATFORMS"])
    runs.finish(tmp_path / "unbroken")
    assert runs.kill(tmp_path / "killed", "training", random.Random(0))
    runs.finish(tmp_path / "killed")
    assert losses(tmp_path / "killed") == losses(tmp_path / "unbroken")
