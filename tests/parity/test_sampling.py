"""The distribution of the next token, compared with transformers' logits processors in the order of its `generate`."""

import jax
import numpy as np
import pytest

from gptjax.inference.sampling import make_sampling, process_logits

torch = pytest.importorskip("torch", reason="needs pip install 'gptjax[parity]'")
processors = pytest.importorskip("transformers.generation.logits_process", reason="needs pip install 'gptjax[parity]'")

V, ROWS = 97, 16


@pytest.mark.parametrize(
    "settings",
    [
        dict(temperature=0.3),
        dict(temperature=2.5, top_k=1),
        dict(top_k=10),
        dict(top_p=0.9),
        dict(top_p=0.05),
        dict(min_p=0.1),
        dict(repetition_penalty=1.7),
        dict(temperature=0.7, top_k=40, top_p=0.95, min_p=0.02, repetition_penalty=1.2),
    ],
    ids=lambda settings: ",".join(f"{name}={value}" for name, value in settings.items()),
)
def test_probabilities_equal_transformers(settings):
    rng = np.random.default_rng(0)
    logits = (3 * rng.standard_normal((ROWS, V))).astype(np.float32)
    prompt = rng.integers(0, V, (ROWS, 12))
    seen = np.zeros((ROWS, V), bool)
    np.put_along_axis(seen, prompt, True, axis=1)

    made = {
        "repetition_penalty": processors.RepetitionPenaltyLogitsProcessor,
        "temperature": processors.TemperatureLogitsWarper,
        "top_k": processors.TopKLogitsWarper,
        "top_p": processors.TopPLogitsWarper,
        "min_p": processors.MinPLogitsWarper,
    }
    scores = torch.tensor(logits, dtype=torch.float64)
    for name, kind in made.items():
        if name in settings:
            scores = kind(settings[name])(torch.tensor(prompt), scores)
    expected = torch.softmax(scores, -1).numpy()

    sampling = make_sampling(range(ROWS), num_tokens=V, **settings)
    actual = jax.nn.softmax(process_logits(logits, seen, sampling))
    np.testing.assert_array_equal(np.asarray(actual) > 0, expected > 0)
    np.testing.assert_allclose(actual, expected, rtol=2e-5, atol=1e-12)
