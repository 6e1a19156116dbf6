"""Log-likelihoods against one whole forward pass per request, and texts against the generator's."""

import dataclasses

import jax
import numpy as np
import pytest
from random_models import MAX_POSITIONS, TOKENIZER, make_model, reference
from scipy.special import log_softmax

from gptjax.conversation import Message, Renderer, load_template
from gptjax.errors import ConfigError
from gptjax.evaluate import read_text
from gptjax.evaluation.answering import ModelAnswerer, before_first
from gptjax.evaluation.requests import Generated, Scored
from gptjax.inference.generate import Generator
from gptjax.model.families import family_of

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


def test_log_likelihoods_equal_those_of_single_forward_passes(model):
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
    one, other = answers[0], answers[1]
    assert other == dataclasses.replace(
        one, nats=pytest.approx(one.nats, abs=1e-4)
    )  # the blank belongs to the continuation, whether it ends the context or begins the continuation
    assert answers[0].bytes == len(" sat on the mat") and answers[5].truncated > MAX_POSITIONS


def test_texts_equal_the_generators_and_long_prompts_lose_their_beginning(model):
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


def test_a_model_of_conversations_reads_a_prompt_as_the_users_message(model):
    params, config = model
    renderer = Renderer(load_template("turns"), TOKENIZER)
    long = "z" * 2 * MAX_POSITIONS
    answerer = ModelAnswerer(params, config, TOKENIZER, renderer=renderer)
    answers = dict(answerer.generate([Generated("The cat", 5, ()), Generated(long + "The cat", 5, ())]))
    room = MAX_POSITIONS - 5 + 1
    kept = long[: room - 4 - len("The cat")] + "The cat"  # besides the begin token and three control tokens
    prompts = [[BEGIN, *renderer.prompt([Message("user", text)])] for text in ("The cat", kept)]
    assert len(prompts[1]) == room
    generator = Generator(params, config, TOKENIZER, end_id=renderer.end_id)
    for index, wanted in enumerate(generator.generate(prompts, max_new_tokens=5, temperature=0.0)):
        assert (answers[index].text, answers[index].finish_reason) == (wanted.text, wanted.finish_reason)
    assert (answers[0].truncated, answers[1].truncated) == (0, len(long) - len(kept) + len("The cat"))


def test_models_that_cannot_generate_are_refused(model):
    params, config = model
    encoder = dataclasses.replace(config, model=dataclasses.replace(config.model, family="encoder"))
    with pytest.raises(ConfigError, match="family = 'encoder'"):
        ModelAnswerer(params, encoder, TOKENIZER)


SOURCES = ["Il dort.", "Bonjour", "s" * 2 * MAX_POSITIONS + "Qui dort?"]


@pytest.fixture(scope="module")
def translator():
    return make_model(family="encoder_decoder")


@pytest.mark.parametrize("num_beams", [0, 3])
def test_for_an_encoder_decoder_the_prompt_is_the_source(translator, num_beams):
    params, config = translator
    answerer = ModelAnswerer(params, config, TOKENIZER, num_beams=num_beams)
    answers = dict(answerer.generate([Generated(source, 6, ()) for source in SOURCES]))
    kept = [*SOURCES[:2], SOURCES[2][-(MAX_POSITIONS - 1) :]]  # including the EOS of the source
    options = dict(num_beams=num_beams) if num_beams else dict(temperature=0.0)
    write = answerer.generator.search if num_beams else answerer.generator.generate
    for index, expected in enumerate(write(kept, max_new_tokens=6, **options)):
        assert (answers[index].text, answers[index].finish_reason) == (expected.text, expected.finish_reason)
    assert [answers[index].truncated for index in range(3)] == [0, 0, MAX_POSITIONS + 1 + len("Qui dort?")]


def test_a_target_may_be_as_long_as_the_model_writes(translator):
    params, config = translator
    ((_, answer),) = ModelAnswerer(params, config, TOKENIZER).generate([Generated("Il dort.", 99, ())])
    generator = Generator(params, config, TOKENIZER)
    (expected,) = generator.generate(["Il dort."], max_new_tokens=MAX_POSITIONS, temperature=0.0)
    assert answer.text == expected.text


@pytest.mark.parametrize(("length", "most"), [(3, 42), (8, 36), (20, 24), (40, 24), (99, 24)])
def test_an_answer_gets_the_room_that_its_prompt_leaves_and_at_least_half(length, most, model, monkeypatch):
    """In eighths of the context, which has 48 tokens; the begin token is one, and the last one is not read."""
    answerer, asked = ModelAnswerer(*model, TOKENIZER), []
    monkeypatch.setattr(answerer, "_write", lambda prompts, most, stop: asked.append((prompts, most)) or [])
    list(answerer.generate([Generated("x" * length, 999, ())]))
    (((prompt,), found),) = asked
    assert found == most and len(prompt) == min(1 + length, MAX_POSITIONS + 1 - most)
    asked.clear()
    list(answerer.generate([Generated("x" * length, 5, ())]))
    assert asked[0][1] == 5 and len(asked[0][0][0]) == min(1 + length, MAX_POSITIONS + 1 - 5)


def test_equal_requests_have_equal_answers(model):
    answers = dict(ModelAnswerer(*model, TOKENIZER).score([REQUESTS[0], *REQUESTS, REQUESTS[0]]))
    assert answers[0] == answers[1] == answers[len(REQUESTS) + 1]
    assert sorted(answers) == list(range(len(REQUESTS) + 2))


def test_a_continuation_longer_than_the_context_is_measured_by_its_scored_part(model, translator):
    long = Scored("A", " " + "é" * MAX_POSITIONS)  # two bytes, and two tokens, per character
    ((_, answer),) = ModelAnswerer(*model, TOKENIZER).score([long])
    assert answer.tokens == answer.bytes == MAX_POSITIONS and answer.truncated == 2 + 1 + MAX_POSITIONS - 1
    ((_, answer),) = ModelAnswerer(*translator, TOKENIZER).score([long])
    assert answer.tokens == answer.bytes == MAX_POSITIONS and answer.truncated == MAX_POSITIONS


def test_texts_have_no_likelihood_under_a_model_of_pairs(translator, tmp_path):
    params, config = translator
    (tmp_path / "a.txt").write_text("a text")
    with pytest.raises(ConfigError, match=r"--text=.*'encoder_decoder' predicts targets from sources"):
        read_text(tmp_path / "a.txt", ModelAnswerer(params, config, TOKENIZER), {}, tmp_path)


def test_a_target_is_shown_below_its_source_and_a_continuation_on_the_same_line(model, translator):
    assert Generator(*translator, TOKENIZER).separator == "\n"
    assert Generator(*model, TOKENIZER, objective="completion").separator == "\n"
    assert Generator(*model, TOKENIZER).separator == ""


def test_log_likelihoods_of_targets_equal_those_of_single_forward_passes(translator):
    params, config = translator
    apply = jax.jit(family_of(config.model).module().apply)
    requests = [Scored("Il dort.", "He"), Scored("Il dort.", " she sleeps"), Scored("Bonjour", "He")]
    answers = dict(ModelAnswerer(params, config, TOKENIZER).score(requests))
    for index, request in enumerate(requests):
        source = np.array([[*TOKENIZER.encode(request.context), TOKENIZER.eos_id]])
        target = TOKENIZER.encode(request.continuation.strip())
        logits = np.asarray(apply({"params": params}, source, np.array([[BEGIN, *target[:-1]]]))[0])
        logprobs = log_softmax(logits, axis=-1)[np.arange(len(target)), np.array(target)]
        assert answers[index].nats == pytest.approx(float(logprobs.sum()), abs=1e-4)
        assert answers[index].greedy == bool((logits.argmax(-1) == np.array(target)).all())


def test_a_decoder_that_completes_pairs_ends_the_source_first(model):
    params, config = model
    config = dataclasses.replace(config, training=dataclasses.replace(config.training, objective="completion"))
    answerer = ModelAnswerer(params, config, TOKENIZER)
    generator = Generator(params, config, TOKENIZER, objective="completion")
    ((_, answer),) = answerer.generate([Generated("Il dort.", 5, ())])
    (expected,) = generator.generate(["Il dort."], max_new_tokens=5, temperature=0.0)
    assert answer.text == expected.text
    ((_, score),) = answerer.score([Scored("Il dort.", "He")])
    tokens = [BEGIN, *TOKENIZER.encode("Il dort."), TOKENIZER.eos_id, *TOKENIZER.encode("He")]
    assert score.nats == pytest.approx(reference(params, config, tokens, len(tokens) - 2)[0], abs=1e-4)


def test_a_text_ends_before_the_first_stop_string():
    assert before_first("one. two! three", ("!", ".")) == "one"
    assert before_first("one", ("!",)) == "one"
