"""The engine: texts do not depend on neighbours, slots, pieces or kept prefixes, nothing recompiles, nothing hangs."""

import dataclasses
import threading

import jax
import numpy as np
import pytest
from random_models import TOKENIZER, logits_of, make_model
from scipy.special import log_softmax

from gptjax.config import ConfigError
from gptjax.inference import batch as batches
from gptjax.inference import engine_steps, prompt_reading, shapes
from gptjax.inference.devices import decoding_mesh
from gptjax.inference.engine import Engine
from gptjax.inference.generate import Generator
from gptjax.inference.growing_text import GrowingText
from gptjax.inference.prefix import PrefixCache
from gptjax.inference.prompt_reading import PromptReading, next_group, read_next
from gptjax.inference.request import Request
from gptjax.inference.sampling_params import SamplingParams
from gptjax.inference.speculation import propose
from gptjax.inference.waiting import EngineDown, QueueFull
from gptjax.model.families import family_of
from gptjax.parallel.sharding import params_sharding

CONTEXT = 48
WAIT = 120.0  # seconds, after which a test fails instead of hanging
COMPILED = []  # one entry per program that XLA has compiled
jax.monitoring.register_event_duration_secs_listener(
    lambda event, duration, **_: COMPILED.append(event) if "backend_compile" in event else None
)


@pytest.fixture(scope="module", autouse=True)
def small_shapes():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(shapes, "TOGETHER", 2)
        patch.setattr(shapes, "BLOCK", 8)
        patch.setattr(shapes, "FEWEST_SLOTS", CONTEXT)
        yield


@pytest.fixture(scope="module")
def generator():
    return Generator(committed(make_model()[0]), make_model()[1], TOKENIZER)


# With proposals, everything must be as without them.
@pytest.fixture(scope="module", params=[0, pytest.param(3, marks=pytest.mark.exhaustive)])
def engine(request, generator):
    engine = Engine(generator, num_slots=3, piece=16, max_waiting=20, num_speculative_tokens=request.param)
    engine.start()
    yield engine
    engine.close(drain=False)


def committed(params):
    """Parameters as a checkpoint gives them."""
    return jax.device_put(params, jax.devices()[0])


def alone(generator, prompt, params):
    """The tokens that the generator gives for the request alone."""
    names = ("temperature", "top_k", "top_p", "min_p", "repetition_penalty")
    (completion,) = generator.generate(
        [prompt],
        max_new_tokens=params.max_tokens,
        seeds=params.seed,
        stop=params.stop,
        **{name: getattr(params, name) for name in names},
    )
    return completion


PROMPTS = ["", "a", "def f(x): return", "zwölf", "0123456789 0123456789 0123456789", "this one is longer than them"]


def requests():
    """Requests of different lengths and settings, greedy ones and others, by turns."""
    settings = [dict(temperature=0.0), dict(temperature=1.2, top_p=0.9), dict(top_k=20, repetition_penalty=1.3)]
    for i in range(12):
        prompt = PROMPTS[i % len(PROMPTS)]
        yield prompt, SamplingParams(max_tokens=1 + 5 * i % 14, seed=i, min_p=0.01, **settings[i % 3])


def test_texts_equal_those_of_each_request_alone_and_nothing_recompiles(generator, engine, monkeypatch):
    expected, together = [alone(generator, *request) for request in requests()], []
    monkeypatch.setattr(engine_steps, "read_next", lambda group: together.append(len(group)) or read_next(group))
    COMPILED.clear()
    running = [
        engine.submit(prompt, params, stream=bool(i % 2)) for i, (prompt, params) in enumerate(requests())
    ]  # four times as many as slots
    for request, completion in zip(running, expected):
        events = list(request)
        assert request.is_finished
        assert "".join(event.text for event in events) == request.text == completion.text
        ends = request.finish_reason == "stop"  # the token that ended it is not among its tokens
        assert [id for event in events for id in event.token_ids] == completion.tokens[: -1 if ends else None]
        assert request.finish_reason == {"eos": "stop", "max_new_tokens": "length"}[completion.finish_reason]
        assert request.usage.completion_tokens == len(completion.tokens)
        assert 0 <= request.timings.queued <= request.timings.time_to_first_token <= request.timings.total
    assert not COMPILED
    assert set(together) == {1, 2}, "some prompts must have been read in one call"
    assert engine.metrics.slots_in_use == 0


def test_nothing_recompiles_if_the_engine_is_started_under_a_mesh(generator):
    engine = Engine(generator, num_slots=1, piece=8, prefix_tokens=0)
    with jax.set_mesh(decoding_mesh("tensor=1")):
        engine.start()
    COMPILED.clear()
    assert engine.submit("abc", SamplingParams(max_tokens=4, seed=1)).result(WAIT).text
    assert not COMPILED
    engine.close()


def test_the_batch_grows_and_shrinks_without_changing_texts_or_compiling(generator, monkeypatch):
    monkeypatch.setattr(shapes, "FEWEST_SLOTS", 24)
    monkeypatch.setattr(batches, "_PATIENCE", 2)
    monkeypatch.setattr(engine_steps, "MOMENT", 0.0)  # one token per call
    engine = Engine(generator, num_slots=3, piece=8)
    assert (engine._sizes.rows, engine._sizes.slots) == ((1, 3), (24, 48))
    engine.start(wait_for_all=False)
    assert engine.first_context == 24
    short = SamplingParams(max_tokens=9, seed=1)
    assert engine.submit("abc", short).result(WAIT).text == alone(generator, "abc", short).text
    engine._programs.wait(for_all=True)
    assert engine.is_compiled
    sizes, fit = [], batches.Batch._fit

    def watched(batch, num_steps):
        fit(batch, num_steps)
        sizes.append((len(batch._texts), batch._state.cache.num_slots))

    monkeypatch.setattr(batches.Batch, "_fit", watched)
    COMPILED.clear()
    asked = [("b", SamplingParams(max_tokens=18, seed=1)), ("abc" * 9, SamplingParams(max_tokens=9, seed=2))]
    asked += [("ab", SamplingParams(max_tokens=40, seed=3, ignore_eos=True))]
    texts = [request.result(WAIT).text for request in [engine.submit(*each) for each in (*asked, *asked[:2])]]
    texts += [engine.submit(*asked[0]).result(WAIT).text]
    assert not COMPILED
    engine.close()
    assert set(sizes) >= {(1, 24), (3, 48), (1, 48)}
    no_end = Generator(*make_model(), TOKENIZER, begin_id=TOKENIZER.eos_id, end_id=-1)
    expected = [alone(each, *one).text for each, one in zip((generator, generator, no_end), asked)]
    assert texts == [*expected, *expected[:2], expected[0]]


def test_a_kept_prefix_changes_nothing_and_is_counted(generator, engine):
    prefix = "Once upon a time, there was a"
    params = SamplingParams(max_tokens=6, seed=3)
    hits = engine.metrics.prefix_hits
    first, again, longer, other = (
        engine.submit(prompt, params).result(WAIT) for prompt in (prefix, prefix, prefix + " king", "x" + prefix)
    )
    full = len(prefix) // 8 * 8  # with the begin token, 30 tokens are three full blocks of 8, and the last one is read
    assert [r.usage.cached_tokens for r in (first, again, longer, other)] == [0, full, full, 0]
    assert engine.metrics.prefix_hits == hits + 2
    for request, prompt in zip((first, again, longer, other), (prefix, prefix, prefix + " king", "x" + prefix)):
        assert request.text == alone(generator, prompt, params).text


def test_the_next_turn_of_a_conversation_reads_only_what_is_new(generator, engine):
    params = SamplingParams(max_tokens=14, seed=8, ignore_eos=True)
    first = engine.submit("a question?", params).result(WAIT)
    tokens = [*first.prompt_tokens, *first.outputs[0].token_ids, *TOKENIZER.encode(" no!")]
    COMPILED.clear()
    second = engine.submit(tokens, params).result(WAIT)
    assert not COMPILED
    assert (len(first.prompt_tokens), second.cached_tokens) == (12, 24)  # of 12 + 14, of which the last was not read
    assert second.text == alone(Generator(*make_model(), TOKENIZER, end_id=-1), tokens, params).text


def test_pieces_of_the_same_length_are_read_together_but_the_same_beginning_only_once(generator, monkeypatch):
    monkeypatch.setattr(shapes, "TOGETHER", 4)
    sizes = shapes.engine_shapes(3, CONTEXT, 32, 4)
    assert [(piece, sizes.together(piece)) for piece in sizes.pieces] == [(8, 4), (16, 1), (32, 1)]
    kept = PrefixCache(generator, num_blocks=4)

    def group(*prompts, **settings):
        """The numbers of the prompts whose pieces are read in the first call."""
        requests = [Request("", list(prompt), SamplingParams(**settings), seed=0) for prompt in prompts]
        readings = [PromptReading(generator, sizes, request, kept, b"") for request in requests]
        return [readings.index(reading) for reading in next_group(readings)]

    short = [range(0, 7), range(10, 15), range(20, 28), range(30, 37)]
    assert group(*short) == [0, 1, 2, 3]
    assert group(short[0], range(9), *short[1:]) == [0, 2, 3, 4], "the longer one is read alone"
    assert group(range(9), *short) == [0], "the first is read first"
    assert group(*short[:2]) == [0], "a call for four costs as much as three"
    kept.keep(kept.chain(b"", range(30)), kept.load([], slots=32))
    assert group(range(12), range(13), range(14)) == [0, 1, 2], "what is left of these is short"
    assert group(range(12), range(13), range(14), prompt_logprobs=0) == [0], "which need all"
    monkeypatch.setattr(shapes, "TOGETHER", 2)
    assert group(range(50, 60), range(50, 61)) == [0], "the other can use the first one's block"
    assert group(range(50, 60), range(60, 71)) == [0, 1]
    monkeypatch.setattr(shapes, "FEWEST_SLOTS", 8)
    sizes = shapes.engine_shapes(3, CONTEXT, 32, 4)
    assert group(range(60, 65), range(70, 75)) == [0, 1]
    assert group(range(26), range(60, 65)) == [0], "2 and 5 tokens are left, but their rows have 32 and 8 slots"


def test_texts_go_on_while_a_long_prompt_is_read(generator, monkeypatch):
    """A call reads at least one piece, also if the time for reading is over before it begins."""
    monkeypatch.setattr(engine_steps, "PAUSE", 0.0)
    monkeypatch.setattr(engine_steps, "PAUSED_STEPS", 0)
    calls, step = [], batches.Batch.step
    monkeypatch.setattr(engine_steps, "read_next", lambda group: calls.append("read") or read_next(group))
    monkeypatch.setattr(batches.Batch, "step", lambda batch, n: calls.append("step") or step(batch, n))
    engine = Engine(generator, num_slots=2, piece=8, prefix_tokens=0)
    engine.metrics.is_up = True  # without `start`, so that both are there at the first step
    engine._thread = threading.Thread(target=engine._steps.run, daemon=True)
    params = SamplingParams(max_tokens=9, temperature=0.0, ignore_eos=True)
    both = [engine.submit(prompt, params) for prompt in ("a", "a" * 38)]
    engine._thread.start()
    assert all(len(request.result(WAIT).outputs[0].token_ids) == 9 for request in both)
    engine.close()
    first, last = calls.index("step"), len(calls) - 1 - calls[::-1].index("read")
    assert calls[first:last] == ["step", "read"] * 4 + ["step"], "between two of its five pieces, the other goes on"


def test_the_blocks_used_longest_ago_are_replaced(generator):
    kept = PrefixCache(generator, num_blocks=4)

    def row_of(fill, blocks):
        cache = kept.load([], slots=32)
        return jax.tree.map(lambda x: 0 * x + fill if x.ndim == 4 else x + 8 * blocks, cache)

    chains = {name: kept.chain(b"", [ord(name)] * 17) for name in "abc"}
    assert [len(chain) for chain in chains.values()] == [2, 2, 2]
    kept.keep(chains["a"], row_of(1.0, 2))
    kept.keep(chains["b"], row_of(2.0, 2))
    kept.load(chains["a"], 32)  # now b was used longest ago
    kept.keep(chains["c"], row_of(3.0, 2))
    assert [kept.num_known(chains[name]) for name in "abc"] == [2, 0, 2]
    for name, fill in (("a", 1.0), ("c", 3.0)):
        row = kept.load(chains[name], 32)
        assert row.lengths_B.tolist() == [16]
        assert (np.asarray(row.keys[0][:, :, :16]) == fill).all()
    long = kept.chain(b"", list(range(60)))
    kept.keep(long, kept.load([], slots=64))
    assert kept.num_known(long) == 4, "the beginning of a chain is kept if there is not room for all"
    assert kept.num_known(kept.chain(b"another model", list(range(60)))) == 0


def test_logprobs_of_prompt_and_text_are_the_models_own(engine):
    params, config = make_model()
    asked = SamplingParams(max_tokens=5, seed=2, temperature=1.5, logprobs=3, prompt_logprobs=2)
    prompt = "log-probabilities"
    COMPILED.clear()
    request = engine.submit(prompt, asked).result(WAIT)
    assert not COMPILED
    tokens = [*request.prompt_tokens, *request.outputs[0].token_ids]
    logprobs_TV = log_softmax(logits_of(params, config, tokens), axis=-1)
    given = [*request.prompt_logprobs[1:], *request.outputs[0].logprobs]
    assert request.prompt_logprobs[0] is None
    assert len(given) == len(tokens) - 1
    for place, (token, entry) in enumerate(zip(tokens[1:], given)):
        num_top = 2 if place + 1 < len(request.prompt_tokens) else 3
        assert entry.token_id == token
        np.testing.assert_allclose(entry.logprob, logprobs_TV[place, token], atol=1e-4)
        best = np.argsort(-logprobs_TV[place])[:num_top]
        assert [id for id, _ in entry.top] == best.tolist()
        np.testing.assert_allclose([x for _, x in entry.top], logprobs_TV[place, best], atol=1e-4)
    only_prompt = engine.submit(prompt, SamplingParams(max_tokens=0, prompt_logprobs=0)).result(WAIT)
    assert [entry.logprob for entry in only_prompt.prompt_logprobs[1:]] == [
        entry.logprob for entry in request.prompt_logprobs[1:]
    ]
    assert (only_prompt.text, only_prompt.finish_reason, only_prompt.usage.completion_tokens) == ("", "length", 0)


def test_penalties_biases_and_the_minimum_act_as_they_are_defined(engine):
    """Beside a loop over whole forward passes with NumPy."""
    params, config = make_model()
    prompt = "abcabc"
    free = engine.submit(prompt, SamplingParams(max_tokens=12, temperature=0.0)).result(WAIT).outputs[0].token_ids
    banned = free[2]
    for settings in (
        dict(presence_penalty=2.0),
        dict(frequency_penalty=1.5, presence_penalty=-0.5),
        dict(logit_bias={banned: -100, free[0]: 3.0}, repetition_penalty=1.2),
        dict(min_tokens=7, stop_token_ids=[banned]),
    ):
        asked = SamplingParams(max_tokens=12, temperature=0.0, ignore_eos=True, **settings)
        request = engine.submit(prompt, asked).result(WAIT)
        tokens = list(request.prompt_tokens)
        for _ in range(12):
            logits = logits_of(params, config, tokens)[-1].astype(np.float64)
            own = tokens[len(request.prompt_tokens) :]
            for token, bias in asked.logit_bias.items():
                logits[token] += bias
            if len(own) < asked.min_tokens:
                logits[list(asked.stop_token_ids)] = -np.inf
            for token in set(tokens):
                penalty = asked.repetition_penalty
                logits[token] *= 1 / penalty if logits[token] > 0 else penalty
            for token in set(own):
                logits[token] -= asked.presence_penalty + asked.frequency_penalty * own.count(token)
            tokens.append(int(logits[: TOKENIZER.vocab_size].argmax()))
            if tokens[-1] in asked.stop_token_ids:
                break
        own = tokens[len(request.prompt_tokens) :]
        assert request.outputs[0].token_ids == [token for token in own if token not in asked.stop_token_ids], settings
        assert own != free


def test_a_text_ends_at_stop_strings_and_stop_tokens_wherever_they_fall(generator, engine):
    free = alone(generator, "seed", SamplingParams(max_tokens=30, seed=11))
    at = next(i for i in range(6, len(free.text) - 3) if free.text.find(free.text[i : i + 3]) == i)
    stop = free.text[at : at + 3]
    params = SamplingParams(max_tokens=30, seed=11, stop=["never there", stop])
    request = engine.submit("seed", params)
    pieces = [event.text for event in request]
    assert "".join(pieces) == request.text == free.text[:at]
    assert (request.finish_reason, request.outputs[0].stop_reason) == ("stop", stop)
    token = free.tokens[9]
    asked = SamplingParams(max_tokens=30, seed=11, stop_token_ids=[token])
    request = engine.submit("seed", asked).result(WAIT)
    assert request.outputs[0].token_ids == free.tokens[: free.tokens.index(token)]
    assert (request.finish_reason, request.outputs[0].stop_reason) == ("stop", token)


def test_the_texts_of_one_request_have_their_own_seeds(generator, engine):
    params = SamplingParams(n=5, max_tokens=8, seed=20)  # more than there are slots
    request = engine.submit("several", params)
    reasons = [event.index for event in request if event.finish_reason]
    assert sorted(reasons) == [0, 1, 2, 3, 4]
    for i, output in enumerate(request.outputs):
        assert output.text == alone(generator, "several", dataclasses.replace(params, n=1, seed=20 + i)).text
    assert engine.submit("several", SamplingParams(max_tokens=1)).seed != engine.submit("", SamplingParams()).seed


def test_cancelled_requests_end_at_once_and_free_their_slots(engine):
    long = SamplingParams(max_tokens=40, ignore_eos=True)
    held = threading.Event()
    running = [engine.submit("a", long, listener=lambda event: held.wait(WAIT)) for _ in range(2)]
    waiting = [engine.submit("b", long) for _ in range(3)]
    for request in (*running, waiting[1]):
        request.cancel()
    held.set()
    assert [request.result(WAIT).finish_reason for request in (*running, waiting[1])] == ["cancelled"] * 3
    assert waiting[1].usage.completion_tokens == 0
    assert [request.result(WAIT).finish_reason for request in (waiting[0], waiting[2])] == ["length"] * 2
    running[0].cancel()  # does nothing
    assert engine.submit("c", SamplingParams(max_tokens=2)).result(WAIT).is_finished


def test_a_full_queue_refuses_at_once(engine):
    held = threading.Event()
    blocker = engine.submit("a", SamplingParams(max_tokens=4, ignore_eos=True), listener=lambda event: held.wait(WAIT))
    taken = []
    with pytest.raises(QueueFull, match="20 requests are waiting"):
        for _ in range(30):
            taken.append(engine.submit("b", SamplingParams(max_tokens=1)))
    held.set()
    assert all(request.result(WAIT).finish_reason in ("stop", "length") for request in (blocker, *taken))
    assert engine.metrics.requests_refused == 1


def test_requests_that_cannot_be_are_refused_with_the_reason(engine):
    for prompt, params, message in (
        ("x" * CONTEXT, SamplingParams(), f"{CONTEXT + 1} tokens"),
        ([10**6], SamplingParams(), "prompt = token ids from 1000000"),
        ("a", SamplingParams(stop_token_ids=[500]), f"stop_token_ids = 500: must be below {TOKENIZER.vocab_size}"),
        ("a", SamplingParams(logit_bias={500: 1}), "logit_bias = 500"),
    ):
        with pytest.raises(ConfigError, match=message):
            engine.submit(prompt, params)
    with pytest.raises(ConfigError, match=r"adapter = 'poems': expected one of \(none\)"):
        engine.submit("a", adapter="poems")
    with pytest.raises(ConfigError, match="num_slots = 0: must be at least 1"):
        Engine(engine.generator, num_slots=0)


def test_a_failed_step_ends_its_requests_and_the_engine_goes_on(generator, engine, monkeypatch):
    monkeypatch.setattr(engine_steps, "MOMENT", 0.0)  # one token per call
    step = batches.Batch.step
    calls = []

    def broken(batch, num_steps):
        calls.append(1)
        if len(calls) == 2:
            raise RuntimeError("device lost")
        return step(batch, num_steps)

    monkeypatch.setattr(batches.Batch, "step", broken)
    params = SamplingParams(max_tokens=30, seed=1, ignore_eos=True)
    request = engine.submit("abc", params)
    *_, last = request
    assert last.finish_reason == "error" and "device lost" in request.error
    monkeypatch.setattr(prompt_reading, "read", None)
    unread = engine.submit("abc", params).result(WAIT)
    assert unread.finish_reason == "error" and "not callable" in unread.error
    monkeypatch.undo()
    params = SamplingParams(max_tokens=9, seed=1)
    assert engine.submit("abc", params).result(WAIT).text == alone(generator, "abc", params).text


@pytest.mark.parametrize(
    "place, name", [(engine_steps, "PromptReading"), (prompt_reading, "make_request_sampling"), (GrowingText, "add")]
)
def test_a_request_that_fails_on_the_host_ends_alone(generator, engine, monkeypatch, place, name):
    """It does not count as a failure of the engine, which also keeps what it has of other prompts."""
    working = getattr(place, name)

    def failing(*args):
        if any(getattr(arg, "seed", None) == 13 for arg in args):
            raise OverflowError("too large")
        return working(*args)

    prompt, params = "a beginning that is kept", SamplingParams(max_tokens=6, seed=3)
    expected = alone(generator, prompt, params).text
    assert engine.submit(prompt, params).result(WAIT).text == expected
    monkeypatch.setattr(place, name, failing)
    for _ in range(engine_steps.MOST_FAILURES + 1):
        failed = engine.submit(prompt, SamplingParams(max_tokens=6, seed=13)).result(WAIT)
        assert (failed.finish_reason, failed.error) == ("error", "OverflowError: too large")
    again = engine.submit(prompt, params).result(WAIT)
    assert (again.text, again.usage.cached_tokens, engine.metrics.is_up) == (expected, 24, True)


def test_logits_that_are_not_finite_end_only_their_own_text():
    """The model continues 'a' with 'b', after which logits are NaN, and 'c' with 'c' forever."""
    params, config = make_model(position="none", tied_embeddings=False)  # of the shape of the other tests' but one
    a, b, c = TOKENIZER.encode("abc")
    params = jax.tree.map(np.zeros_like, params)
    params["final_norm"]["scale"] += 1.0
    params["embedding"][a, 0] = params["embedding"][c, 1] = 1.0
    params["head"][0, b] = params["head"][1, c] = 1.0
    params["embedding"][b] = np.nan
    engine = Engine(Generator(params, config, TOKENIZER), num_slots=3, piece=8)
    engine.metrics.is_up = True  # without `start`, since not all programs are needed
    engine._thread = threading.Thread(target=engine._steps.run, daemon=True)
    good = engine.submit("c", SamplingParams(max_tokens=9, temperature=0.0))
    bad = engine.submit("a", SamplingParams(max_tokens=9, temperature=0.0))
    worse = engine.submit("b", SamplingParams(max_tokens=9, temperature=0.0))
    engine._thread.start()
    assert good.result(WAIT).text == "c" * 9
    for request, text in ((bad, "b"), (worse, "")):
        assert request.result(WAIT).finish_reason == "error"
        assert (request.text, "not finite" in request.error) == (text, True)
    engine.close()


def test_an_engine_that_is_closed_finishes_or_cancels_and_takes_no_more(generator, monkeypatch):
    monkeypatch.setattr(engine_steps, "MOMENT", 0.0)  # one token per call
    for drain, reason in ((True, "length"), (False, "cancelled")):
        engine = Engine(generator, num_slots=3, piece=8)
        with pytest.raises(EngineDown, match="does not run"):
            engine.submit("a")
        engine.start()
        held = threading.Event()
        params = SamplingParams(max_tokens=30, ignore_eos=True)
        running = [engine.submit("a", params, listener=lambda event, held=held: held.wait(WAIT)) for _ in range(5)]
        closing = threading.Thread(target=engine.close, args=[drain])
        closing.start()
        while not engine._waiting.is_closing:
            pass
        held.set()
        closing.join(WAIT)
        assert [request.result(WAIT).finish_reason for request in running] == [reason] * 5
        with pytest.raises(EngineDown):
            engine.submit("a")


def test_an_engine_whose_steps_keep_failing_is_down_and_leaves_nobody_waiting(generator, monkeypatch):
    engine = Engine(generator, num_slots=1, piece=8)
    engine.start()
    monkeypatch.setattr(prompt_reading, "read", None)
    taken = []
    with pytest.raises(EngineDown):
        for _ in range(100):
            taken.append(engine.submit("a"))
            if len(taken) % 8 == 0:
                taken[-1].result(WAIT)
    assert {request.result(WAIT).finish_reason for request in taken} == {"error"}
    assert not engine.metrics.is_up
    engine._thread.join(WAIT)
    assert not engine._thread.is_alive(), "it does not wait for requests that it would refuse"
    engine.close()


def test_adapters_have_their_own_texts_and_prefixes_and_compile_nothing(generator, engine):
    params, config = make_model()
    others = [
        Generator(committed(jax.tree.map(lambda x, by=by: x * by, params)), config, TOKENIZER) for by in (1.1, 0.9)
    ]
    COMPILED.clear()
    engine.add_adapter("poems", others[0])
    engine.add_adapter("letters", others[1])
    with pytest.raises(ConfigError, match="adapter = 'poems': is loaded already"):
        engine.add_adapter("poems", others[0])
    settings = SamplingParams(max_tokens=8, seed=4)
    prompt = "the same beginning of a text"
    names = (None, "poems", "letters") * 2
    running = [engine.submit(prompt, settings, adapter=name) for name in names]
    texts = [request.result(WAIT).text for request in running]
    assert not COMPILED
    assert texts == [alone(each, prompt, settings).text for each in (generator, *others)] * 2
    assert len(set(texts)) == 3
    engine.remove_adapter("poems")
    with pytest.raises(ConfigError, match="expected one of letters"):
        engine.submit(prompt, settings, adapter="poems")
    engine.remove_adapter("letters")
    wider = Generator(*make_model(num_layers=1), TOKENIZER)
    with pytest.raises(ConfigError, match="its model is not the engine's"):
        engine.add_adapter("wider", wider)


@pytest.mark.parametrize("weights", ["int8", pytest.param("bfloat16", marks=pytest.mark.exhaustive)])
def test_narrow_weights_write_the_texts_of_a_generator_with_them(generator, weights):
    params, config = make_model()
    narrow = Generator(committed(params), config, TOKENIZER, weights=weights)
    engine = Engine(narrow, num_slots=1, piece=8, prefix_tokens=0)
    engine.start()
    expected = [alone(narrow, *request).text for request in requests()]
    COMPILED.clear()
    running = [engine.submit(*request) for request in requests()]
    assert [request.result(WAIT).text for request in running] == expected
    assert not COMPILED
    assert expected != [alone(generator, *request).text for request in requests()], "they are other weights"
    engine.close()


def test_proposals_are_what_followed_the_longest_match_and_the_latest_of_these():
    draw = np.random.default_rng(0)
    read_BS, length_B = draw.integers(0, 3, (64, 24)).astype(np.int32), draw.integers(1, 25, 64)
    read_BS[0], length_B[0] = np.arange(24), 24
    proposed_BK, found_B = jax.jit(propose, static_argnums=2)(read_BS, length_B, 4)
    for row, length, proposed, found in zip(read_BS.tolist(), length_B, proposed_BK.tolist(), found_B.tolist()):
        tokens, expected = row[:length], None
        for size in (1, 2, 3):  # a longer match replaces a shorter one, and a later match an earlier one
            for end in range(size, length):
                if tokens[end - size : end] == tokens[length - size :]:
                    expected = (tokens[end:] * 4)[:4]
        assert found == (expected is not None)
        assert not found or proposed == expected
    assert 0 < sum(found_B) < 64


def repeating_requests():
    """Requests whose texts repeat themselves, with everything that may end a text or change what is drawn."""
    few = {ord(c): 9.0 for c in "abcd "}  # then texts drawn at random repeat themselves, too
    for prompt, settings in (
        ("abcabcabcabc", dict(max_tokens=None, temperature=0.0)),
        ("abc", dict(max_tokens=30, seed=1, logit_bias=few, logprobs=2)),
        ("abcd abcd", dict(max_tokens=17, seed=2, logit_bias=few, temperature=0.5, ignore_eos=True)),
        ("abcd abcd", dict(max_tokens=25, seed=2, logit_bias=few, presence_penalty=0.7, frequency_penalty=0.1)),
        ("abcd abcd", dict(max_tokens=25, seed=3, logit_bias=few, repetition_penalty=1.1, top_k=4, n=3)),
        ("aaaa", dict(max_tokens=30, seed=4, logit_bias=few, stop=["cd", "ab d"])),
        ("aaaa", dict(max_tokens=30, seed=5, logit_bias=few, stop_token_ids=[ord("c")], min_tokens=6, top_p=0.9)),
        (
            "ab" * 15,
            dict(max_tokens=None, seed=6, logit_bias=few, ignore_eos=True, logprobs=1),
        ),  # to the end of the context
        ("ab" * 23 + "a", dict(max_tokens=None, temperature=0.0)),  # which has room for one more
    ):
        yield prompt, SamplingParams(**settings)


@pytest.fixture(scope="module")
def proposing(generator):
    engine = Engine(generator, num_slots=3, piece=8, num_speculative_tokens=3)
    engine.start()
    yield engine
    engine.close(drain=False)


def test_proposals_change_no_text_and_no_log_probability(engine, proposing):
    COMPILED.clear()
    both, counts = [], []
    for each in (engine, proposing):
        before = dataclasses.replace(each.metrics)
        running = [each.submit(*request, stream=i % 2 == 0) for i, request in enumerate(repeating_requests())]
        both.append([(output, request) for request in running for output in request.result(WAIT).outputs])
        names = ("generated_tokens", "proposed_tokens", "accepted_tokens")
        counts.append([getattr(each.metrics, name) - getattr(before, name) for name in names])
    assert not COMPILED
    for (expected, without), (output, request) in zip(*both):
        for name in ("token_ids", "text", "finish_reason", "stop_reason"):
            assert getattr(output, name) == getattr(expected, name), (request.id, name)
        assert request.usage.completion_tokens == without.usage.completion_tokens
        for entry, other in zip(output.logprobs or (), expected.logprobs or ()):
            assert [token for token, _ in entry.top] == [token for token, _ in other.top]
            np.testing.assert_allclose(entry.logprob, other.logprob, atol=1e-4)
    reasons = {output.finish_reason for output, _ in both[1]}
    assert reasons == {"stop", "length"}
    (tokens, *_), (tokens_too, proposed, accepted) = counts
    assert tokens == tokens_too and 40 < accepted < proposed
    before = dataclasses.replace(proposing.metrics)
    tokens = proposing.submit(*next(repeating_requests())).result(WAIT).usage.completion_tokens
    steps, accepted = (
        getattr(proposing.metrics, name) - getattr(before, name) for name in ("steps", "accepted_tokens")
    )
    assert tokens == 1 + steps + accepted, "each step gives a token and those that it accepts"


def test_what_a_text_with_proposals_leaves_is_right_for_the_next_prompt(generator, proposing):
    """Keys and values of rejected proposals must not be kept."""
    params = SamplingParams(max_tokens=22, seed=8, ignore_eos=True, logit_bias={ord(c): 9.0 for c in "abc"})
    accepted = proposing.metrics.accepted_tokens
    first = proposing.submit("abcabc", params).result(WAIT)
    assert proposing.metrics.accepted_tokens > accepted
    tokens = [*first.prompt_tokens, *first.outputs[0].token_ids, *TOKENIZER.encode(" no!")]
    second = proposing.submit(tokens, SamplingParams(max_tokens=4, temperature=0.0, logprobs=0)).result(WAIT)
    assert second.cached_tokens == 24
    read = [*tokens, *second.outputs[0].token_ids]
    logprobs_TV = log_softmax(logits_of(*make_model(), read), axis=-1)
    for place, entry in enumerate(second.outputs[0].logprobs, len(tokens) - 1):
        np.testing.assert_allclose(entry.logprob, logprobs_TV[place, entry.token_id], atol=1e-4)


def test_a_text_that_fills_its_row_leaves_the_right_keys_while_its_neighbour_goes_on(generator, monkeypatch):
    """Steps also write into rows that are done, behind what these have read."""
    monkeypatch.setattr(shapes, "FEWEST_SLOTS", 24)
    engine = Engine(generator, num_slots=3, piece=8)  # of the shapes of other tests
    engine.metrics.is_up = True  # without `start`, so that both are there at the first step
    engine._thread = threading.Thread(target=engine._steps.run, daemon=True)
    full, other = "fifteen tokens.", "abc"
    filling = engine.submit(full, SamplingParams(max_tokens=9, seed=1, ignore_eos=True), stream=False)
    engine.submit(other, SamplingParams(max_tokens=18, seed=1, ignore_eos=True), stream=False)
    engine._thread.start()
    tokens = [*filling.result(WAIT).prompt_tokens, *filling.outputs[0].token_ids]
    assert len(tokens) == 25, "24 of them are read"
    again = engine.submit(tokens, SamplingParams(max_tokens=1, temperature=0.0, logprobs=0)).result(WAIT)
    assert again.cached_tokens == 24
    entry = again.outputs[0].logprobs[0]
    logprobs_TV = log_softmax(logits_of(*make_model(), tokens), axis=-1)
    np.testing.assert_allclose(entry.logprob, logprobs_TV[-1, entry.token_id], atol=1e-4)
    engine.close()


@pytest.mark.exhaustive
def test_two_devices_write_the_same_texts_and_compile_nothing_afterwards(generator):
    params, config = make_model()
    mesh = decoding_mesh("tensor=2")
    placed = jax.device_put(params, params_sharding(mesh, family_of(config.model).declarations))
    engine = Engine(Generator(placed, config, TOKENIZER, mesh=mesh), num_slots=3, piece=8)
    engine.start()
    expected = [alone(generator, *request).text for request in requests()]
    COMPILED.clear()
    running = [engine.submit(*request) for request in [*requests(), *requests()]]
    assert [request.result(WAIT).text for request in running] == expected * 2
    assert not COMPILED
    assert engine.metrics.prefix_hits
    engine.close()


@pytest.mark.exhaustive
def test_an_encoder_and_decoder_is_served_as_well():
    generator = Generator(*make_model(family="encoder_decoder", num_layers=1, position="learned"), TOKENIZER)
    engine = Engine(generator, num_slots=3, piece=8)
    engine.start()
    settings = [SamplingParams(max_tokens=1 + 3 * i, seed=i) for i in range(5)]
    COMPILED.clear()
    running = [engine.submit(prompt, each) for prompt, each in zip(PROMPTS, settings)]
    texts = [request.result(WAIT).text for request in running]
    assert not COMPILED
    assert texts == [alone(generator, prompt, each).text for prompt, each in zip(PROMPTS, settings)]
    with pytest.raises(ConfigError, match="num_speculative_tokens = 2: must be 0 for this kind of model"):
        Engine(generator, num_speculative_tokens=2)
    with pytest.raises(ConfigError, match="prompt_logprobs = 0: this kind of model has none"):
        engine.submit("a", SamplingParams(prompt_logprobs=0))
    engine.close()
