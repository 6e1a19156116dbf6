"""The loss against NumPy; chunked against whole logits in value, gradients and memory."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import log_softmax

from gptjax.training.cross_entropy import cross_entropy

B, T, D, V = 3, 13, 8, 31


def inputs():
    rng = np.random.default_rng(0)
    x = rng.standard_normal((B, T, D)).astype(np.float32)
    head = rng.standard_normal((D, V)).astype(np.float32)
    targets = rng.integers(0, V, (B, T)).astype(np.int32)
    weights = rng.uniform(0.0, 2.0, (B, T)).astype(np.float32)
    weights[:, 4:7] = 0.0
    return x, head, targets, weights


compiled = jax.jit(cross_entropy, static_argnames=("chunk", "z_loss", "logit_softcap", "label_smoothing"))


@functools.cache
def compiled_gradients(**options):
    def loss(x, head, targets, weights):
        loss_sum, aux = cross_entropy(x, head, targets, weights, **options)
        return loss_sum / weights.sum(), aux["nll_sum"]

    return jax.jit(jax.value_and_grad(loss, (0, 1, 3), has_aux=True))


def value_and_gradients(x, head, targets, weights, **options):
    return compiled_gradients(**options)(x, head, targets, weights)


@pytest.mark.parametrize("chunk", [0, 9])
@pytest.mark.parametrize("z_loss, softcap", [(0.0, 0.0), (0.01, 0.0), (0.01, 2.0)])
def test_equals_numpy(chunk, z_loss, softcap):
    x, head, targets, weights = (a.astype(np.float64) if a.dtype == np.float32 else a for a in inputs())
    logits = x @ head
    if softcap:
        logits = softcap * np.tanh(logits / softcap)
    lse = np.log(np.exp(logits).sum(-1))
    nll = lse - np.take_along_axis(logits, targets[..., None], -1)[..., 0]
    loss_sum, aux = compiled(*inputs(), chunk=chunk, z_loss=z_loss, logit_softcap=softcap)
    np.testing.assert_allclose(loss_sum, (weights * (nll + z_loss * lse**2)).sum(), rtol=1e-5)
    np.testing.assert_allclose(aux["nll_sum"], (weights * nll).sum(), rtol=1e-5)
    assert loss_sum.dtype == aux["nll_sum"].dtype == jnp.float32


@pytest.mark.parametrize("chunk", [0, 9])
def test_label_smoothing_spreads_part_of_each_target_over_all_tokens(chunk):
    """The loss is the cross-entropy with the smoothed distribution; the reported nll is that of the target alone."""
    x, head, targets, weights = inputs()
    wanted = 0.9 * np.eye(V)[targets] + 0.1 / V
    nll = -np.take_along_axis(log_softmax(x @ head, axis=-1), targets[..., None], -1)[..., 0]

    def by_definition(x, head, weights):
        return -(weights[..., None] * wanted * jax.nn.log_softmax(x @ head)).sum() / weights.sum()

    (loss, figure), gradients = value_and_gradients(x, head, targets, weights, chunk=chunk, label_smoothing=0.1)
    expected, expected_gradients = jax.jit(jax.value_and_grad(by_definition, (0, 1, 2)))(x, head, weights)
    np.testing.assert_allclose(loss, expected, rtol=1e-5)
    np.testing.assert_allclose(figure, (weights * nll).sum(), rtol=1e-5)
    for actual, wanted_gradient in zip(gradients[:2], expected_gradients[:2]):
        np.testing.assert_allclose(actual, wanted_gradient, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("chunk", [0, 9])
@pytest.mark.parametrize("target", [-1, V, 2**31 - 1])
def test_a_target_outside_the_vocabulary_is_not_a_number(chunk, target):
    x, head, targets, weights = inputs()
    targets[1, 5] = target  # of weight 0: padding may contain any token
    loss_sum, aux = compiled(x, head, targets, weights, chunk=chunk, z_loss=0.01)
    assert np.isfinite(loss_sum) and np.isfinite(aux["nll_sum"])
    targets[1, 3] = target
    (loss, nll), _ = value_and_gradients(x, head, targets, weights, chunk=chunk, z_loss=0.01)
    assert np.isnan(loss) and np.isnan(nll)


@pytest.mark.parametrize("z_loss, softcap", [(0.0, 0.0), (0.01, 2.0)])
def test_gradients_equal_those_of_jax(z_loss, softcap):
    """Compares the path with whole logits, which has its own logsumexp gradient, with plain automatic
    differentiation."""
    x, head, targets, weights = inputs()

    def plain(x, head, weights):
        logits = x @ head
        logits = softcap * jnp.tanh(logits / softcap) if softcap else logits
        lse = jax.nn.logsumexp(logits, axis=-1)
        nll = lse - jnp.take_along_axis(logits, targets[..., None], -1)[..., 0]
        return (weights * (nll + z_loss * lse**2)).sum() / weights.sum()

    _, gradients = value_and_gradients(x, head, targets, weights, z_loss=z_loss, logit_softcap=softcap)
    expected = jax.jit(jax.grad(plain, (0, 1, 2)))(x, head, weights)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6), gradients, expected)


@pytest.mark.parametrize("z_loss, softcap", [(0.0, 0.0), (0.01, 2.0)])
@pytest.mark.parametrize("chunk", [1, 6, 15, 1000])  # below one position of each row, uneven, all
def test_chunked_equals_whole(chunk, z_loss, softcap):
    options = dict(z_loss=z_loss, logit_softcap=softcap)
    expected = value_and_gradients(*inputs(), **options)
    actual = value_and_gradients(*inputs(), chunk=chunk, **options)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6), actual, expected)


@pytest.mark.parametrize("chunk", [0, 6])
def test_tokens_of_weight_zero_have_no_effect(chunk):
    x, head, targets, weights = inputs()
    (_, _), (x_gradient, head_gradient, _) = value_and_gradients(x, head, targets, weights, chunk=chunk, z_loss=0.01)
    assert not np.any(x_gradient[:, 4:7])
    assert np.all(np.any(x_gradient[:, 7:], axis=-1))
    x[:, 4:7], targets[:, 4:7] = 50.0, 0
    (_, _), (_, other, _) = value_and_gradients(x, head, targets, weights, chunk=chunk, z_loss=0.01)
    np.testing.assert_allclose(head_gradient, other, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("chunk", [0, 6])
def test_nll_has_no_gradient(chunk):
    x, head, targets, weights = inputs()
    gradient = jax.jit(jax.grad(lambda x: cross_entropy(x, head, targets, weights, chunk=chunk)[1]["nll_sum"]))(x)
    assert not np.any(gradient)


@pytest.mark.parametrize("chunk", [0, 6])
def test_bfloat16_hidden_states_with_a_float32_head(chunk):
    """The loss is the exact sum for rounded operands, and the head's gradient stays float32."""
    x, head, targets, weights = inputs()
    low, low_head = jnp.asarray(x, jnp.bfloat16), jnp.asarray(head, jnp.bfloat16).astype(jnp.float32)
    (loss, _), (x_gradient, head_gradient, _) = value_and_gradients(low, head, targets, weights, chunk=chunk)
    (expected, _), (x_expected, head_expected, _) = value_and_gradients(
        low.astype(jnp.float32), low_head, targets, weights
    )
    np.testing.assert_allclose(loss, expected, rtol=1e-6)
    assert x_gradient.dtype == jnp.bfloat16 and head_gradient.dtype == jnp.float32
    np.testing.assert_allclose(np.float32(x_gradient), x_expected, atol=0.02 * np.abs(x_expected).max())
    np.testing.assert_allclose(head_gradient, head_expected, atol=0.02 * np.abs(head_expected).max())


@pytest.mark.parametrize("chunk", [0, 6])
def test_every_product_of_bfloat16_operands_is_bfloat16(chunk):
    """A float32 cotangent times a bfloat16 operand would run on the float32 units."""
    x, head, targets, weights = inputs()
    loss = lambda x, head: cross_entropy(x, head, targets, weights, chunk=chunk)[0]  # noqa: E731
    text = jax.jit(jax.grad(loss, (0, 1))).lower(x.astype(jnp.bfloat16), head).as_text()
    products = [line.split(" : ")[-1].split(" -> ")[0] for line in text.splitlines() if "dot_general" in line]
    assert len(products) == 3
    assert all(operands.count("bf16") == 2 for operands in products)


@pytest.mark.parametrize("wrap", [lambda f: f, jax.checkpoint])
def test_under_scan_and_remat(wrap):
    """As in gradient accumulation, two micro-batches in a scan give the sum."""
    x, head, targets, weights = inputs()

    def total(head):
        def add(carry, _):
            return carry + wrap(lambda h: cross_entropy(x, h, targets, weights, chunk=6)[0])(head), None

        return jax.lax.scan(add, 0.0, None, length=2)[0]

    once = jax.jit(jax.grad(lambda h: cross_entropy(x, h, targets, weights)[0]))(head)
    np.testing.assert_allclose(jax.jit(jax.grad(total))(head), 2 * once, rtol=1e-4, atol=1e-5)


def test_chunks_save_memory():
    def temporaries(chunk):
        f32, i32 = jnp.float32, jnp.int32
        shapes = [
            jax.ShapeDtypeStruct(*s) for s in (((4, 64, 8), f32), ((8, 2048), f32), ((4, 64), i32), ((4, 64), f32))
        ]
        loss = lambda x, head, targets, weights: cross_entropy(x, head, targets, weights, chunk=chunk)[0]  # noqa: E731
        return jax.jit(jax.value_and_grad(loss, (0, 1))).lower(*shapes).compile().memory_analysis().temp_size_in_bytes

    logits = 4 * 64 * 2048 * 4
    assert temporaries(0) >= logits
    assert temporaries(32) < 0.35 * logits
