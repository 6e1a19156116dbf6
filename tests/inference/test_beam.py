"""Beam search equals an exhaustive search, is greedy with one beam, and treats prompts independently."""

import math

import jax
import numpy as np
import pytest
from random_models import TOKENIZER, greedy_reference, make_model

from gptjax.config import ConfigError, RunError
from gptjax.inference import shapes
from gptjax.inference.generate import Generator
from gptjax.model.decoder import Decoder
from gptjax.model.families import family_of
from gptjax.tokenizer import CharacterTokenizer

FEW = CharacterTokenizer("abc")  # few enough tokens for trying all texts


@pytest.fixture(autouse=True)
def small_buckets(monkeypatch):
    monkeypatch.setattr(shapes, "BUCKET", 8)
    monkeypatch.setattr(shapes, "PIECE", 8)


@pytest.fixture(scope="module")
def few():
    """A model with FEW's vocabulary, and a function for the log-probability of each next token after given tokens."""
    params, config = make_model(FEW, scale=0.5, vocab_size=16)
    forward = jax.jit(Decoder(config.model).apply)

    def logprobs_after(tokens):
        padded = np.zeros((1, 16), np.int32)
        padded[0, : len(tokens)] = tokens
        return np.asarray(jax.nn.log_softmax(forward({"params": params}, padded)[0, len(tokens) - 1]), np.float64)

    return params, config, logprobs_after


@pytest.fixture(scope="module")
def few_pairs():
    """An encoder–decoder with FEW's vocabulary, and a function from a source to a function as that of `few`."""
    params, config = make_model(FEW, scale=0.5, vocab_size=16, family="encoder_decoder")
    forward = jax.jit(family_of(config.model).module().apply)

    def logprobs_for(source):
        source_1S = np.array([[*FEW.encode(source), FEW.eos_id]])

        def logprobs_after(tokens):
            target_1T = np.zeros((1, 16), np.int32)
            target_1T[0, : 1 + len(tokens)] = [FEW.eos_id, *tokens]
            logits_V = forward({"params": params}, source_1S, target_1T)[0, len(tokens)]
            return np.asarray(jax.nn.log_softmax(logits_V), np.float64)

        return logprobs_after

    return params, config, logprobs_for


def all_texts(logprobs_after, prompt, limit, penalty):
    """(score, tokens) of every text of at most `limit` tokens, best first."""
    texts, beginnings = [], [((), 0.0)]
    for length in range(1, limit + 1):
        longer = []
        for tokens, logprob in beginnings:
            after = logprobs_after([*prompt, *tokens])
            for token in range(FEW.vocab_size):
                text, total = (*tokens, token), logprob + after[token]
                if token == FEW.eos_id or length == limit:
                    texts.append((total / ((5 + length) / 6) ** penalty, text))
                else:
                    longer.append((text, total))
        beginnings = longer
    return sorted(texts, reverse=True)


@pytest.mark.parametrize("penalty", [0.0, 0.6, 2.0, -1.0])
def test_a_wide_search_equals_an_exhaustive_search(few, penalty):
    params, config, logprobs_after = few
    generator = Generator(params, config, FEW)
    width = FEW.vocab_size
    prompt = [FEW.eos_id, *FEW.encode("ab")]
    best = all_texts(logprobs_after, prompt, 2, penalty)[:width]  # two tokens: as many beginnings as there are beams
    found = generator.search([prompt], num_beams=width, num_samples=width, length_penalty=penalty, max_new_tokens=2)
    assert [tuple(each.tokens) for each in found] == [tokens for _, tokens in best]
    np.testing.assert_allclose([each.score for each in found], [score for score, _ in best], rtol=1e-5)
    for each in found:
        divisor = ((5 + len(each.tokens)) / 6) ** penalty
        assert each.score == pytest.approx(sum(each.logprobs) / divisor, rel=1e-5)
        assert each.finish_reason == ("eos" if each.tokens[-1] == FEW.eos_id else "max_new_tokens")


def search_by_hand(logprobs_after, prompt, width, limit, penalty):
    """The textbook loop, with lists and without stopping early."""
    beams, finished = [((), 0.0)], []
    for length in range(1, limit + 1):
        longer = [
            ((*tokens, token), total + after)
            for tokens, total in beams
            for token, after in enumerate(logprobs_after([*prompt, *tokens])[: FEW.vocab_size])
        ]
        longer = sorted(longer, key=lambda each: -each[1])[: 2 * width]
        ended = [each for each in longer if each[0][-1] == FEW.eos_id or length == limit]
        finished += [(total / ((5 + length) / 6) ** penalty, tokens) for tokens, total in ended]
        beams = [each for each in longer if each not in ended][:width]
    return sorted(finished, reverse=True)[:width]


WIDTHS = [2, *(pytest.param(width, marks=pytest.mark.exhaustive) for width in (1, 3))]  # each is a separate program


@pytest.mark.parametrize("penalty", [0.0, 1.0])
@pytest.mark.parametrize("width", WIDTHS)
def test_long_texts_and_several_prompts(few, width, penalty):
    """A joint search for prompts with different lengths and limits by the context equals separate searches."""
    params, config, logprobs_after = few
    generator = Generator(params, config, FEW, batch_size=3 * width)
    prompts = [[FEW.eos_id, *FEW.encode(text)] for text in ("a", "bccab", "", "cc")]
    found = generator.search(prompts, num_beams=width, num_samples=width, length_penalty=penalty, max_new_tokens=7)
    expected = [search_by_hand(logprobs_after, prompt, width, 7, penalty) for prompt in prompts]
    assert [tuple(each.tokens) for each in found] == [tokens for texts in expected for _, tokens in texts]
    np.testing.assert_allclose([each.score for each in found], [s for texts in expected for s, _ in texts], rtol=1e-5)


def test_targets_are_searched_for_each_source(few_pairs):
    """In an encoder–decoder, the beams of a source see this source alone."""
    params, config, logprobs_for = few_pairs
    generator, sources = Generator(params, config, FEW), ["ab", "cabbc"]
    width = FEW.vocab_size
    found = generator.search(sources, num_beams=width, num_samples=width, max_new_tokens=2)
    best = [all_texts(logprobs_for(source), (), 2, 0.6)[:width] for source in sources]
    assert [tuple(each.tokens) for each in found] == [tokens for texts in best for _, tokens in texts]
    np.testing.assert_allclose([each.score for each in found], [s for texts in best for s, _ in texts], rtol=1e-5)


def test_one_beam_is_greedy():
    params, config = make_model()
    (found,) = Generator(params, config, TOKENIZER).search(["def f(x):"], num_beams=1, max_new_tokens=20)
    prompt = [TOKENIZER.eos_id, *TOKENIZER.encode("def f(x):")]
    assert found.tokens == greedy_reference(params, config, prompt, 20)[: len(found.tokens)]
    assert found.text == TOKENIZER.decode(found.tokens)


def test_a_text_may_fill_the_context():
    params, config = make_model(FEW, max_positions=10)
    (found,) = Generator(params, config, FEW).search(["ab" * 4], num_beams=2, max_new_tokens=99, length_penalty=50.0)
    assert found.finish_reason in ("context", "eos") and len(found.tokens) <= 2


def test_non_finite_logits_are_an_error():
    params, config = make_model(FEW)
    params["embedding"][:] = math.nan
    with pytest.raises(RunError, match="not finite"):
        Generator(params, config, FEW).search(["a"], num_beams=2)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (dict(num_beams=0), "num_beams = 0"),
        (dict(num_beams=99), "num_beams = 99: must be from 1 to 12"),
        (dict(num_samples=5), "num_samples = 5: must be from 1 to num_beams = 4"),
        (dict(length_penalty=math.inf), "length_penalty = inf"),
    ],
)
def test_invalid_values_are_refused(few, wrong, message):
    params, config, _ = few
    with pytest.raises(ConfigError, match=message):
        Generator(params, config, FEW).search(["a"], **wrong)
