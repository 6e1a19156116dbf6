"""Log-likelihoods against whole forward passes of one request each, and texts against the generator's."""

import dataclasses

import pytest
from random_models import MAX_POSITIONS, TOKENIZER, make_model, reference

from gptjax.errors import ConfigError
from gptjax.evaluation.answering import ModelAnswerer
from gptjax.evaluation.requests import Generated, Scored
from gptjax.inference.generate import Generator

BEGIN = TOKENIZER.eos_id
REQUESTS = [
    Scored("The cat ", "sat on the mat"),
    Scored("The cat", " sat on the mat"),
    Scored("", "a sentence of its own"),
    Scored("x" * (MAX_POSITIONS // 2), " an end"),
    Scored("The cat ", "ran"),
    Scored("y" * 2 * MAX_POSITIONS + "The cat", " sat"),
]


@pytest.fixture(scope="module")
def model():
    return make_model()


def test_log_likelihoods_are_those_of_single_forward_passes(model):
    params, config = model
    answers = dict(ModelAnswerer(params, config, TOKENIZER).score(REQUESTS))
    assert sorted(answers) == list(range(len(REQUESTS)))
    for index, request in enumerate(REQUESTS):
        context = request.context.rstrip()
        whole = [BEGIN, *TOKENIZER.encode(request.context + request.continuation)]
        first = 1 + len(TOKENIZER.encode(context))
        cut = max(0, len(whole) - MAX_POSITIONS - 1)
        nats, greedy = reference(params, config, whole[cut:], first - cut)
        answer = answers[index]
        assert answer.nats == pytest.approx(nats, abs=1e-4)
        assert (answer.greedy, answer.tokens, answer.truncated) == (greedy, len(whole) - first, cut)
    assert answers[0] == answers[1]  # the blank belongs to the continuation wherever it is written
    assert answers[0].bytes == len(" sat on the mat") and answers[5].truncated > MAX_POSITIONS


def test_texts_are_the_generator_s_and_long_prompts_lose_their_beginning(model):
    params, config = model
    long = "z" * 2 * MAX_POSITIONS
    requests = [Generated("The cat", 5, ()), Generated(long + "The cat", 5, ())]
    answers = dict(ModelAnswerer(params, config, TOKENIZER).generate(requests))
    assert sorted(answers) == [0, 1]
    generator = Generator(params, config, TOKENIZER)
    (first,) = generator.generate(["The cat"], max_new_tokens=5, temperature=0.0)
    assert (answers[0].text, answers[0].truncated) == (first.text, 0)
    kept = [BEGIN, *TOKENIZER.encode(long + "The cat")][-(MAX_POSITIONS - 5 + 1) :]
    (second,) = generator.generate([kept], max_new_tokens=5, temperature=0.0)
    assert (answers[1].text, answers[1].finish_reason) == (second.text, second.finish_reason)
    assert answers[1].truncated == 2 * MAX_POSITIONS + 8 - len(kept)


def test_other_families_are_refused(model):
    params, config = model
    encoder = dataclasses.replace(config, model=dataclasses.replace(config.model, family="encoder"))
    with pytest.raises(ConfigError, match="family = 'encoder'"):
        ModelAnswerer(params, encoder, TOKENIZER)
