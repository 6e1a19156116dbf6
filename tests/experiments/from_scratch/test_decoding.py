"""experiments/from_scratch/decoding.py and schedules.py give what the project's functions give."""

import itertools

import decoding
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import schedules

from gptjax.inference.sampling import make_sampling, process_logits
from gptjax.training.optimizers.schedule import make_schedule

LOGITS = np.random.default_rng(0).normal(0.0, 2.0, 12).astype(np.float32)
WAYS = {
    "temperature": (lambda x: decoding.with_temperature(x, 0.5), dict(temperature=0.5)),
    "top_k": (lambda x: decoding.top_k(x, 4), dict(top_k=4)),
    "top_p": (lambda x: decoding.top_p(x, 0.7), dict(top_p=0.7)),
    "all": (
        lambda x: decoding.top_p(decoding.top_k(decoding.with_temperature(x, 1.5), 6), 0.8),
        dict(temperature=1.5, top_k=6, top_p=0.8),
    ),
}


@pytest.fixture(scope="module")
def processed():
    """The project's probabilities of each way, computed together as the rows of a batch."""
    rows = [dict(temperature=1.0, top_k=0, top_p=1.0) | settings for _, settings in WAYS.values()]
    settings = {name: [row[name] for row in rows] for name in rows[0]}
    sampling = make_sampling(range(len(rows)), num_tokens=12, **settings)
    logits_BV = np.tile(LOGITS, (len(rows), 1))
    made = jax.jit(process_logits)(logits_BV, np.zeros(logits_BV.shape, bool), sampling)
    return dict(zip(WAYS, np.asarray(jax.nn.softmax(made))))


@pytest.mark.parametrize("way", WAYS)
def test_probabilities_are_those_of_the_sampler(way, processed):
    mine = jax.jit(lambda x: jax.nn.softmax(WAYS[way][0](x)))(LOGITS)
    np.testing.assert_allclose(mine, processed[way], rtol=1e-5, atol=1e-7)


def test_a_wide_beam_finds_the_most_probable_text_and_a_beam_of_one_is_greedy():
    """Three steps over three tokens, where the greedy text is not the most probable one."""
    first = np.log([0.5, 0.4, 0.1])
    after = {0: np.log([0.34, 0.33, 0.33]), 1: np.log([0.05, 0.9, 0.05]), 2: np.log([0.2, 0.2, 0.6])}

    def logprobs_of(tokens):
        return jnp.asarray(after[tokens[-1]] if tokens else first)

    def score(tokens):
        return first[tokens[0]] + sum(after[a][b] for a, b in itertools.pairwise(tokens))

    best = max(itertools.product(range(3), repeat=3), key=score)
    found_score, found = decoding.beam_search(logprobs_of, width=9, num_new=3)
    assert found == list(best) == [1, 1, 1] and found_score == pytest.approx(score(best), rel=1e-5)
    assert decoding.beam_search(logprobs_of, width=1, num_new=3)[1] == [0, 0, 0]


def test_the_written_out_schedule_is_the_one_of_training():
    settings = schedules.DRAWN["cosine"]
    rates = make_schedule(settings, schedules.PEAK, schedules.STEPS, int)(np.arange(schedules.STEPS))
    floor = settings.final_fraction * schedules.PEAK
    mine = [
        schedules.warmup_and_cosine(update, schedules.PEAK, floor, schedules.WARMUP, schedules.STEPS)
        for update in range(1, schedules.STEPS + 1)
    ]
    np.testing.assert_allclose(mine, rates, rtol=1e-4)
