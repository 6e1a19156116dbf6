"""Generation: the cache does not change the text, rows are independent, nothing recompiles, stops and streams are
exact."""

import copy
import dataclasses
import math
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from random_models import MAX_POSITIONS, TOKENIZER, greedy_reference, logits_of, make_model
from scipy.special import log_softmax

from gptjax.config import ConfigError, RunError
from gptjax.inference import decode as device
from gptjax.inference import row_programs, shapes
from gptjax.inference.generate import Generator
from gptjax.inference.sampling import make_sampling
from gptjax.inference.timing import Timing
from gptjax.model.int8 import Int8
from gptjax.model.one_row import MOST_ROWS, OutputsFirst, TiedTable
from gptjax.tokenizer import ByteTokenizer

BEGIN = TOKENIZER.eos_id  # the default begin token
PROMPTS = ["def f(x):", "a", "héllo wörld, this is longer"]


COMPILED = []  # one entry per program that XLA has compiled
jax.monitoring.register_event_duration_secs_listener(
    lambda event, duration, **_: COMPILED.append(event) if "backend_compile" in event else None
)


@pytest.fixture(scope="module")
def generator():
    return Generator(*make_model(), TOKENIZER)


@pytest.fixture(autouse=True)
def small_buckets(monkeypatch):
    monkeypatch.setattr(shapes, "BUCKET", 32)
    monkeypatch.setattr(shapes, "PIECE", 32)


VARIANTS = {
    "rope": dict(num_layers=1),
    "rope, grouped queries, windows, scanned": dict(
        num_layers=2, num_kv_heads=2, qk_norm=True, window=5, window_pattern="SL", layers="scan"
    ),
    "learned, biases, scanned": dict(
        position="learned", bias="all", norm="layernorm", layers="scan", num_layers=1, scale=0.1
    ),
    "sinusoidal, multi-query, untied": dict(position="sinusoidal", num_layers=1, num_kv_heads=1, tied_embeddings=False),
    "none, windows, soft cap": dict(position="none", num_layers=2, window=5, window_pattern="SL", logit_softcap=5.0),
}


def always(names, *chosen):
    """Runs the chosen cases always, and the others in `make test-exhaustive`, since each compiles its own programs."""
    return [pytest.param(name, marks=[] if name in chosen else pytest.mark.exhaustive) for name in names]


@pytest.mark.parametrize("variant", always(VARIANTS, *list(VARIANTS)[:3]))
def test_cached_greedy_equals_whole_forward_passes(variant):
    params, config = make_model(**VARIANTS[variant])
    completions = Generator(params, config, TOKENIZER).generate(PROMPTS, max_new_tokens=19, temperature=0.0)
    for prompt, completion in zip(PROMPTS, completions):
        expected = greedy_reference(params, config, [BEGIN, *TOKENIZER.encode(prompt)], 19)
        if TOKENIZER.eos_id in expected:
            expected = expected[: expected.index(TOKENIZER.eos_id) + 1]
        assert completion.tokens == expected
        assert completion.text == TOKENIZER.decode(expected)
    assert len({completion.text for completion in completions}) == len(PROMPTS)


def test_logprobs_are_the_models_own(generator):
    params, config = make_model()
    (completion,) = generator.generate(["abc"], max_new_tokens=10, temperature=1.7, top_k=50, repetition_penalty=1.3)
    tokens = [BEGIN, *TOKENIZER.encode("abc"), *completion.tokens]
    logprobs_TV = log_softmax(logits_of(params, config, tokens), axis=-1)
    expected = [logprobs_TV[3 + i, token] for i, token in enumerate(completion.tokens)]
    np.testing.assert_allclose(completion.logprobs, expected, rtol=1e-4, atol=1e-4)


def test_a_long_prompt_is_read_in_pieces_with_the_same_result(monkeypatch):
    prompt = "0123456789" * 4
    texts = []
    for piece, max_positions in ((16, MAX_POSITIONS), (64, MAX_POSITIONS + 2)):  # other programs, which are compiled
        monkeypatch.setattr(shapes, "PIECE", piece)
        params, config = make_model(max_positions=max_positions, num_layers=1)
        (completion,) = Generator(params, config, TOKENIZER).generate([prompt], max_new_tokens=6, temperature=0.0)
        texts.append(completion.tokens)
    assert texts[0] == texts[1] == greedy_reference(params, config, [BEGIN, *TOKENIZER.encode(prompt)], 6)


def test_the_cache_grows_without_changing_the_text(monkeypatch):
    params, config = make_model(max_positions=128, num_layers=1)
    tokenizer = ByteTokenizer()
    tokenizer.eos_id = None
    whole = Generator(params, config, tokenizer).generate(["ab"], max_new_tokens=40, seeds=3)
    monkeypatch.setattr(shapes, "FIRST_ROOM", 16)
    assert shapes.rooms(40) == [16, 32, 40]
    generator = Generator(params, config, tokenizer)
    grown = generator.generate(["ab"], max_new_tokens=40, seeds=3)
    assert len(whole[0].tokens) == 40
    assert grown[0].tokens == whole[0].tokens
    in_pieces = generator.stream("ab", max_new_tokens=40, seed=3, chunk=7)
    assert "".join(in_pieces) == whole[0].text


def test_rows_do_not_depend_on_their_neighbours(generator):
    options = dict(max_new_tokens=16, temperature=1.2, top_p=0.95, repetition_penalty=1.1)
    together = generator.generate(PROMPTS, seeds=[5, 6, 7], **options)
    alone = [generator.generate([prompt], seeds=[seed], **options)[0] for prompt, seed in zip(PROMPTS, [5, 6, 7])]
    assert [c.tokens for c in together] == [c.tokens for c in alone]
    in_turn = Generator(*make_model(), TOKENIZER, batch_size=1).generate(PROMPTS, seeds=[5, 6, 7], **options)
    assert [c.tokens for c in together] == [c.tokens for c in in_turn]


BATCH_VARIANTS = {
    "xla, grouped queries, windows, scanned": dict(
        num_layers=2, num_kv_heads=2, window=5, window_pattern="SL", layers="scan", attention="xla"
    ),
    "reference, learned positions": dict(attention="reference", position="learned", num_layers=1),
    "bfloat16": dict(dtype="bfloat16", num_kv_heads=1, num_layers=1),
}


@pytest.mark.parametrize("variant", always(BATCH_VARIANTS, "xla, grouped queries, windows, scanned"))
def test_rows_are_replaced_without_affecting_each_other(variant):
    """Eight requests of different lengths run in two rows: whenever a row is done, the next request takes its place.

    Greedy and sampled rows alternate; the prompt of a new row is read while the other row is in the middle of its text.
    """
    params, config = make_model(**BATCH_VARIANTS[variant])
    generator = Generator(params, config, TOKENIZER)
    prompts = ["a", "def f(x): return", "", "zwölf", "this one is longer than them", "b", "0123456789", "end"]
    requests = [
        dict(prompt=prompt, limit=limit, seed=seed, temperature=float(seed % 2))
        for seed, (prompt, limit) in enumerate(zip(prompts, [3, 13, 9, 1, 6, 12, 5, 7]))
    ]
    expected = [
        generator.generate([r["prompt"]], max_new_tokens=r["limit"], seeds=r["seed"], temperature=r["temperature"])[0]
        for r in requests
    ]

    def prefilled(requests, T, room):
        prompts = [[BEGIN, *TOKENIZER.encode(request["prompt"])] for request in requests]
        settings = {name: [request[name] for request in requests] for name in ("limit", "seed", "temperature")}
        return device.prefill(
            generator.family,
            generator.params,
            np.int32([prompt + [0] * (T - len(prompt)) for prompt in prompts]),
            np.int32([len(prompt) for prompt in prompts]),
            np.int32(settings["limit"]),
            make_sampling(settings["seed"], num_tokens=TOKENIZER.vocab_size, temperature=settings["temperature"]),
            np.int32(TOKENIZER.eos_id),
            room=room,
            num_new=16,
            piece=16,
        )

    waiting, finished = list(range(2, len(requests))), {}
    running, state = [0, 1], prefilled(requests[:2], T=32, room=32)
    while any(request is not None for request in running):
        state = device.decode(generator.family, generator.params, state, np.int32(2), np.zeros(2, bool))
        for row, request in enumerate(running):
            if request is None or not state.done_B[row]:
                continue
            length = int(state.length_B[row])
            finished[request] = state.tokens_BG[row, :length].tolist(), state.logprobs_BG[row, :length].tolist()
            running[row] = None
            if waiting:
                running[row] = waiting.pop(0)
                # The previous row must have no effect, whatever it left there.
                spoilt = jax.tree.map(lambda x, row=row: x.at[row].set(np.nan) if x.ndim > 1 else x, state.cache)
                state = state.replace(cache=spoilt)
                state = device.insert(state, prefilled([requests[running[row]]], T=32, room=16), np.int32(row))
    for request, completion in enumerate(expected):
        tokens, logprobs = finished[request]
        assert tokens == completion.tokens, request
        np.testing.assert_allclose(logprobs, completion.logprobs, atol=0.05 if variant == "bfloat16" else 1e-4)


@pytest.mark.parametrize("variant", always(VARIANTS, "rope", "sinusoidal, multi-query, untied"))
def test_matrices_stored_for_few_rows_give_the_same_text(variant):
    params, config = make_model(**VARIANTS[variant])
    few, many = (Generator(params, config, TOKENIZER, batch_size=size) for size in (1, 32))
    stored = jax.tree.leaves(few.params, is_leaf=lambda x: isinstance(x, OutputsFirst | TiedTable))
    assert sum(isinstance(x, OutputsFirst | TiedTable) for x in stored) == 7 * config.model.num_layers + 1
    assert sum(x.size for x in jax.tree.leaves(few.params)) == sum(x.size for x in jax.tree.leaves(many.params))
    options = dict(max_new_tokens=19, temperature=0.0)
    one, other = (generator.generate(["héllo"], **options)[0] for generator in (few, many))
    assert one.tokens == other.tokens
    np.testing.assert_allclose(one.logprobs, other.logprobs, rtol=1e-5, atol=1e-5)


def test_matrices_are_stored_for_few_rows_only_where_that_is_faster(generator, monkeypatch):
    def chosen(**changes):
        changed = copy.copy(generator)
        vars(changed).update(dict(batch_size=1) | changes)
        return changed.is_for_few_rows

    assert chosen() and chosen(batch_size=MOST_ROWS)
    assert not generator.is_for_few_rows and not chosen(batch_size=MOST_ROWS + 1)
    assert not chosen(weights="bfloat16") and not chosen(weights="int8")
    assert not chosen(config=dataclasses.replace(generator.config, dtype="bfloat16"))
    assert not chosen(mesh=jax.make_mesh((1,), ("tensor",)))
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    assert not chosen()


def test_samples_have_the_same_seeds_for_every_prompt(generator):
    completions = generator.generate(["a", "bcd"], num_samples=2, max_new_tokens=12, seeds=40)
    assert [c.seed for c in completions] == [40, 41] * 2
    assert [c.prompt for c in completions] == ["a"] * 2 + ["bcd"] * 2
    assert len({tuple(c.tokens) for c in completions}) == 4
    alone = generator.generate(["bcd"], max_new_tokens=12, seeds=41)[0]
    assert (completions[3].text, completions[3].tokens) == (alone.text, alone.tokens)


def test_similar_prompts_and_other_settings_do_not_recompile(generator):
    generator.generate(["warm up"], max_new_tokens=12)
    COMPILED.clear()
    generator.generate(["another prompt"], max_new_tokens=9, temperature=0.3, top_k=7, top_p=0.9, seeds=9)
    generator.generate(["short"], max_new_tokens=16, temperature=0.0, min_p=0.1, repetition_penalty=1.5)
    assert not COMPILED
    generator.generate(["warm up"], max_new_tokens=16, stop=["y"])
    COMPILED.clear()
    generator.generate(["stopped"], max_new_tokens=16, stop=["x"])
    list(generator.stream("streamed", max_new_tokens=11))
    assert not COMPILED
    generator.generate(["a prompt that is longer than one bucket of tokens"[: MAX_POSITIONS - 1]], max_new_tokens=9)
    assert COMPILED


def test_another_generator_of_the_same_shape_does_not_recompile(generator):
    generator.generate(["warm up"], max_new_tokens=12)
    params, config = make_model()
    params = jax.tree.map(lambda x: x * 1.1, params)
    COMPILED.clear()
    Generator(params, config, TOKENIZER).generate(["again"], max_new_tokens=12)
    assert not COMPILED


def test_eos_ends_a_row_and_is_not_part_of_the_text():
    params, config = make_model()
    free = Generator(params, config, TOKENIZER).generate(["a", "bc"], max_new_tokens=20, temperature=0.0)
    tokenizer = ByteTokenizer()
    tokenizer.eos_id = free[0].tokens[7]
    first = free[0].tokens.index(tokenizer.eos_id)
    generator = Generator(params, config, tokenizer, begin_id=BEGIN)
    completion = generator.generate(["a", "bc"], max_new_tokens=20, temperature=0.0)[0]
    assert completion.finish_reason == "eos"
    assert completion.tokens == free[0].tokens[: first + 1]
    assert len(completion.logprobs) == first + 1
    assert completion.text == TOKENIZER.decode(free[0].tokens[:first])


def test_the_loop_ends_when_all_rows_are_done(generator):
    state = start(generator, limits=[3, 5])
    state = device.decode(generator.family, generator.params, state, np.int32(16), np.zeros(2, bool))
    assert state.length_B.tolist() == [3, 5]
    assert state.cache.lengths_B.tolist() == [3 + 2, 3 + 4]  # the latest token has not been read yet
    state = start(generator, limits=[3, 9])
    state = device.decode(generator.family, generator.params, state, np.int32(16), np.array([False, True]))
    assert state.length_B.tolist() == [3, 1]


def test_a_program_generates_the_requested_number_of_tokens(generator):
    state = start(generator, limits=[9, 9])
    assert state.length_B.tolist() == [1, 1]
    state = device.decode(generator.family, generator.params, state, np.int32(2), np.zeros(2, bool))
    assert state.length_B.tolist() == [3, 3]


def test_seen_tokens_are_those_of_the_prompt_and_the_text(generator):
    """Neither padding after a prompt nor tokens that a row did not generate count for the repetition penalty."""
    state = start(generator, limits=[9, 9])
    state = device.decode(generator.family, generator.params, state, np.int32(2), np.zeros(2, bool))
    for seen_V, tokens_G in zip(state.seen_BV, state.tokens_BG):
        assert set(np.flatnonzero(seen_V)) == {70, *tokens_G[:3].tolist()}


def test_every_token_is_drawn_separately(generator):
    """If all tokens are equally likely, a text has many different tokens."""
    params, config = make_model()
    alike = Generator(jax.tree.map(np.zeros_like, params), config, TOKENIZER)
    tokens = alike.generate(["a"], max_new_tokens=16, seeds=1)[0].tokens
    assert len(set(tokens)) > len(tokens) / 2


def start(generator, limits, T=32, num_new=32):
    """A state after the prefill of arbitrary prompts."""
    batch = len(limits)
    return device.prefill(
        generator.family,
        generator.params,
        np.int32(np.broadcast_to(np.where(np.arange(T) < 3, 70, 71), (batch, T))),
        np.full(batch, 3, np.int32),
        np.array(limits, np.int32),
        make_sampling([0] * batch, num_tokens=TOKENIZER.vocab_size),
        np.int32(-1),
        room=num_new,
        num_new=num_new,
        piece=32,
    )


def test_a_whole_generation_is_one_program(generator, monkeypatch):
    """Only `decode.generate` is called, and its tokens equal those of the two programs."""
    options = dict(max_new_tokens=24, temperature=1.1, top_k=50, repetition_penalty=1.2)
    pieces = generator.generate(PROMPTS, seeds=[1, 2, 3], stop="never there", **options)
    monkeypatch.setattr(row_programs, "prefill", None)
    monkeypatch.setattr(row_programs, "decode", None)
    whole = generator.generate(PROMPTS, seeds=[1, 2, 3], **options)
    assert [(c.tokens, c.finish_reason) for c in whole] == [(c.tokens, c.finish_reason) for c in pieces]
    logprobs = [np.concatenate([c.logprobs for c in completions]) for completions in (whole, pieces)]
    np.testing.assert_allclose(*logprobs, atol=1e-5)


def test_text_ends_exactly_before_a_stop_string(generator):
    options = dict(max_new_tokens=40, seeds=11, temperature=1.0)
    free = generator.generate(["seed"], **options)[0]
    ends = [i for i in range(8, len(free.text) - 3) if free.text.find(free.text[i : i + 3]) == i]
    for i in ends[:4]:  # three characters, which are several tokens and may span chunks of the loop
        stop = free.text[i : i + 3]
        stopped = generator.generate(["seed", "other"], stop=[stop, "never there"], **options)[0]
        assert (stopped.text, stopped.finish_reason) == (free.text[:i], "stop")
        assert stopped.tokens == free.tokens[: len(stopped.tokens)]
        assert stop in TOKENIZER.decode(stopped.tokens)
        assert stop not in TOKENIZER.decode(stopped.tokens[:-1])
    assert ends


@pytest.mark.parametrize("stop", [(), ("e", "ab"), "\n"])
@pytest.mark.parametrize("chunk", [1, 5, 64])
def test_a_stream_is_the_text_of_generate_in_pieces(generator, stop, chunk):
    pieces, completion = [], None
    stream = generator.stream("stream", max_new_tokens=40, seed=2, stop=stop, chunk=chunk)
    while completion is None:
        try:
            pieces.append(next(stream))
        except StopIteration as end:
            completion = end.value
    (whole,) = generator.generate(["stream"], max_new_tokens=40, seeds=[2], stop=stop)
    if not stop:  # another program, whose sums may be rounded differently
        np.testing.assert_allclose(completion.logprobs, whole.logprobs, rtol=1e-5)
        completion = dataclasses.replace(completion, logprobs=whole.logprobs)
    assert completion == whole
    assert "".join(pieces) == completion.text
    assert chunk == 64 or stop or len(pieces) > 3


def test_a_character_that_spans_tokens_is_never_shown_in_parts():
    """The model alternates between the first and the second byte of 'é'. With one token per piece, pieces are still
    whole characters."""
    params, config = make_model(position="none", tied_embeddings=False, num_layers=1)
    first, second = TOKENIZER.encode("é")
    params = jax.tree.map(np.zeros_like, params)  # layers add nothing
    params["final_norm"]["scale"] += 1.0
    params["embedding"][first, 0] = params["embedding"][second, 1] = 1.0
    params["head"][0, second] = params["head"][1, first] = 1.0
    pieces = list(Generator(params, config, TOKENIZER).stream("é", max_new_tokens=9, temperature=0.0, chunk=1))
    assert pieces == ["é"] * 4 + ["\ufffd"]  # the ninth byte never gets its second


def test_generation_ends_at_the_end_of_the_context(generator):
    prompt = "x" * (MAX_POSITIONS - 5)
    full = generator.generate([prompt, "y", "x" * (MAX_POSITIONS - 1)], max_new_tokens=1000, temperature=0.0)
    assert [c.finish_reason for c in full] == ["context"] * 3
    assert [len(c.tokens) for c in full] == [5, MAX_POSITIONS - 1, 1]
    exact, one_less = (generator.generate([prompt], max_new_tokens=n, temperature=0.0)[0] for n in (5, 4))
    assert (exact.finish_reason, one_less.finish_reason) == ("max_new_tokens",) * 2, "all requested tokens are there"
    with pytest.raises(
        ConfigError, match=rf"{MAX_POSITIONS + 1} tokens with the begin token.*max_positions = {MAX_POSITIONS}"
    ):
        generator.generate(["x" * MAX_POSITIONS])
    assert generator.generate(["x" * MAX_POSITIONS], max_new_tokens=1, begin=False)


def test_learned_positions_extend_to_the_end_of_the_context():
    params, config = make_model(position="learned")
    prompt = "x" * (MAX_POSITIONS - 7)
    (completion,) = Generator(params, config, TOKENIZER).generate([prompt], max_new_tokens=100, temperature=0.0)
    assert completion.tokens[:6] == greedy_reference(params, config, [BEGIN, *TOKENIZER.encode(prompt)], 6)
    assert len(completion.tokens) == 7


@pytest.mark.parametrize("begin_id", [None, TOKENIZER.bos_id])
@pytest.mark.parametrize("prompt", ["", "abc"])
def test_a_text_starts_after_the_begin_token_of_training(prompt, begin_id):
    generator = Generator(*make_model(), TOKENIZER, begin_id=begin_id)
    (completion,) = generator.generate([prompt], max_new_tokens=10)
    ids = [begin_id or TOKENIZER.eos_id, *TOKENIZER.encode(prompt)]
    assert completion.tokens == generator.generate([ids], max_new_tokens=10)[0].tokens
    assert completion.prompt == prompt
    if prompt:
        (inside,) = generator.generate([prompt], max_new_tokens=10, begin=False)
        assert inside.tokens == generator.generate([TOKENIZER.encode(prompt)], max_new_tokens=10)[0].tokens
        assert inside.tokens != completion.tokens
    else:
        with pytest.raises(ConfigError, match="prompt = '': must not be empty"):
            generator.generate([prompt], begin=False)


def test_padding_of_the_vocabulary_is_never_generated():
    params, config = make_model(vocab_size=512)
    params["embedding"][TOKENIZER.vocab_size :] *= 10.0
    completions = Generator(params, config, TOKENIZER).generate(["a", "b", "c"], max_new_tokens=20, temperature=1.5)
    assert max(max(c.tokens) for c in completions) < TOKENIZER.vocab_size


@pytest.mark.parametrize(
    "options, message",
    [
        (dict(max_new_tokens=0), "max_new_tokens = 0"),
        (dict(temperature=-1.0), "temperature = -1"),
        (dict(stop=[""]), "stop = ''"),
        (dict(seeds=[1, 2]), "seeds = 2 numbers: must be one for each"),
        (dict(seeds=-1), "seed = -1"),
    ],
)
def test_invalid_values_are_named(generator, options, message):
    with pytest.raises(ConfigError, match=message):
        generator.generate(["a"], **options)


def test_a_second_generator_compiles_nothing_again():
    first, second = (Generator(*make_model(), TOKENIZER) for _ in range(2))
    timings = Timing(), Timing()
    for generator, timing in zip((first, second), timings):
        generator.generate(["a"], max_new_tokens=3, timing=timing)
    assert timings[1].compile_seconds == 0.0 < timings[1].seconds


@pytest.mark.parametrize(
    # The difference of the second generator; a shape that no other test compiles.
    "model, options, is_other, stop, positions",
    [
        (dict(), dict(), False, "never there", 41),
        pytest.param(dict(), dict(weights="bfloat16"), True, (), 42, marks=pytest.mark.exhaustive),
        (dict(), dict(weights="int8"), True, "never there", 43),
        pytest.param(*(dict(dtype="bfloat16"), dict(weights="float32"), True, (), 44), marks=pytest.mark.exhaustive),
    ],
)
def test_compiling_is_never_timed_as_generating(monkeypatch, model, options, is_other, stop, positions):
    phases, timed = [], row_programs.timed

    def watched(run):
        COMPILED.clear()
        result = timed(run)
        phases.append(bool(COMPILED))
        return result

    monkeypatch.setattr(row_programs, "timed", watched)
    for other, is_new in (({}, True), (model, is_other)):
        made = make_model(max_positions=positions, num_layers=1, **other)
        generator = Generator(*made, TOKENIZER, **(options if other is model else {}))
        phases.clear()
        timing = Timing()
        generator.generate(["a"], max_new_tokens=3, stop=stop, timing=timing)
        assert any(phases) == (timing.compile_seconds > 0) == is_new
        assert sum(phases) <= len(phases) // 2, "a new program is called once to compile it, and once more to time it"
        assert not phases[-1]


def test_a_sharded_copy_needs_another_program(generator):
    generator.generate(["a"], max_new_tokens=3)
    params, config = make_model()
    mesh = jax.make_mesh((2,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))
    place = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec())
    sharded = Generator(jax.device_put(params, place), config, TOKENIZER)
    for is_new in (True, False):
        COMPILED.clear()
        timing = Timing()
        sharded.generate(["a"], max_new_tokens=3, timing=timing)
        assert bool(COMPILED) == (timing.compile_seconds > 0) == is_new


@pytest.mark.parametrize("way", always(("one program", "in pieces", "stream"), "one program", "stream"))
def test_non_finite_logits_end_generation_with_an_error(way):
    """The model continues 'a' with 'b', after which logits are NaN, and 'c' with 'c' forever."""
    params, config = make_model(position="none", tied_embeddings=False, num_layers=1)
    a, b, c = TOKENIZER.encode("abc")
    params = jax.tree.map(np.zeros_like, params)
    params["final_norm"]["scale"] += 1.0
    params["embedding"][a, 0] = params["embedding"][c, 1] = 1.0
    params["head"][0, b] = params["head"][1, c] = 1.0
    params["embedding"][b] = np.nan
    generator = Generator(params, config, TOKENIZER)
    assert generator.generate(["c"], max_new_tokens=9, temperature=0.0)[0].text == "c" * 9
    timing = Timing()
    with pytest.raises(RunError, match="prompt = 'a': the model's logits for new token 2 are not finite"):
        if way == "stream":
            list(generator.stream("a", max_new_tokens=40, temperature=0.0, timing=timing))
        else:
            stop = "never there" if way == "in pieces" else ()
            generator.generate(["c", "a"], max_new_tokens=40, temperature=0.0, stop=stop, timing=timing)
    assert timing.new_tokens <= 4, "the other rows end with it"


def test_a_prompt_that_is_not_text_is_refused(generator):
    with pytest.raises(ConfigError, match=r"prompt = 'a\\udcff': must be UTF-8 text"):
        generator.generate(["a\udcff"])


def test_a_tokenizer_of_another_model_is_refused():
    params, config = make_model(vocab_size=100)
    with pytest.raises(ConfigError, match=f"{TOKENIZER.vocab_size} tokens.*100"):
        Generator(params, config, TOKENIZER)


@pytest.mark.parametrize(
    "dtype, weights, size", [("bfloat16", None, 2), ("float32", "bfloat16", 2), ("float32", "int8", 1)]
)
def test_narrow_weights_stay_close_to_float32(dtype, weights, size):
    params, config = make_model(position="learned", dtype=dtype, scale=0.1, num_layers=1)
    generator = Generator(params, config, TOKENIZER, weights=weights)
    (layer, *_) = generator.params["layers"]
    matrices = [layer["attention"]["query"], layer["feedforward"]["down"], generator.params["embedding"]]
    assert all(matrix.dtype.itemsize == size for matrix in matrices)
    assert layer["attention_norm"]["scale"].dtype == generator.params["positions"].dtype == jnp.float32
    (completion,) = generator.generate(["abc"], max_new_tokens=10)
    tokens = [BEGIN, *TOKENIZER.encode("abc"), *completion.tokens]
    logits_TV = logits_of(params, make_model(position="learned", num_layers=1)[1], tokens)
    expected = log_softmax(logits_TV, axis=-1)[np.arange(3, len(tokens) - 1), tokens[4:]]
    np.testing.assert_allclose(completion.logprobs, expected, atol=0.05)


def test_int8_generation_equals_generation_with_rounded_weights_for_every_kind_of_model():
    """With an untied head, biases and gates. Each matrix is rounded along the axes that its product sums over."""
    params, config = make_model(tied_embeddings=False, bias="all", feedforward="swiglu", scale=0.1)
    generator = Generator(params, config, TOKENIZER, weights="int8")
    for path, low in jax.tree_util.tree_leaves_with_path(generator.params, is_leaf=lambda x: isinstance(x, Int8)):
        if isinstance(low, Int8):
            inputs = [size for size, width in zip(low.values.shape, low.scale.shape) if width == 1]
            assert math.prod(inputs) == (
                config.model.feedforward_width if path[-1].key == "down" else config.model.width
            )
        else:
            assert low.ndim == 1 or path[-1].key.endswith("_bias")
    exact = Generator(params, config, TOKENIZER).generate(["abc"], max_new_tokens=5, temperature=0.0)[0]
    close = generator.generate(["abc"], max_new_tokens=5, temperature=0.0)[0]
    np.testing.assert_allclose(close.logprobs[0], exact.logprobs[0], atol=0.05)


def test_unknown_weights_are_refused():
    with pytest.raises(ConfigError, match=r"weights = 'int4'.*float32, bfloat16, int8"):
        Generator(*make_model(), TOKENIZER, weights="int4")


def test_parameters_on_a_mesh_give_the_same_text():
    params, config = make_model()
    expected = Generator(params, config, TOKENIZER).generate(PROMPTS, max_new_tokens=12)
    mesh = jax.make_mesh((4,), ("fsdp",), axis_types=(jax.sharding.AxisType.Auto,))

    def shard(x):
        axis = next((i for i, size in enumerate(x.shape) if i and size % 4 == 0), None)
        spec = [None if i != axis else "fsdp" for i in range(x.ndim)]
        return jax.device_put(x, jax.NamedSharding(mesh, jax.P(*spec)))

    with jax.set_mesh(mesh):
        sharded = Generator(jax.tree.map(shard, params), config, TOKENIZER).generate(PROMPTS, max_new_tokens=12)
    assert [c.tokens for c in sharded] == [c.tokens for c in expected]


def test_timing_counts_every_token_once(generator):
    timing = Timing()
    completions = generator.generate(["abc", "defgh"], num_samples=2, max_new_tokens=10, timing=timing)
    assert (timing.prompt_tokens, timing.completions) == (2 * (4 + 6), 4)
    assert timing.new_tokens == sum(len(c.tokens) for c in completions)
    assert timing.prefill_seconds is None  # one program does both, so the parts are unknown
    assert timing.tokens_per_second == pytest.approx(timing.new_tokens / timing.seconds)


def test_a_stream_times_prefill_and_decoding_separately(generator):
    timing = Timing()
    text = "".join(generator.stream("abc", max_new_tokens=10, timing=timing))
    (completion,) = generator.generate(["abc"], max_new_tokens=10)
    assert completion.text == text
    new_tokens = len(completion.tokens)
    assert (timing.prompt_tokens, timing.new_tokens, timing.completions) == (4, new_tokens, 1)
    assert 0 < timing.prefill_seconds < timing.seconds
    assert timing.prefill_tokens_per_second == pytest.approx(4 / timing.prefill_seconds)
    assert timing.decode_tokens_per_second == pytest.approx(
        (new_tokens - 1) / (timing.seconds - timing.prefill_seconds)
    )


def test_a_timing_adds_up_calls(generator):
    one, all_calls = Timing(), Timing()
    list(generator.stream("abc", max_new_tokens=10, timing=one))
    for _ in range(2):
        list(generator.stream("abc", max_new_tokens=10, timing=all_calls))
    assert (all_calls.new_tokens, all_calls.completions) == (2 * one.new_tokens, 2)
    assert all_calls.prefill_seconds > 0
    for call in (generator.generate, generator.generate):
        call(["abc"], max_new_tokens=10, timing=all_calls)
    list(generator.stream("abc", max_new_tokens=10, timing=all_calls))
    assert (all_calls.new_tokens, all_calls.completions) == (5 * one.new_tokens, 5)
    assert all_calls.prefill_seconds is None, "unknown for some calls"


def test_generation_does_not_change_the_generator():
    """Interleaved streams equal separate ones, and no attribute of the generator changes."""
    generator = Generator(*make_model(), TOKENIZER)
    before = dict(vars(generator))
    options = dict(max_new_tokens=20, chunk=3)
    alone = {prompt: list(generator.stream(prompt, seed=4, **options)) for prompt in ("ab", "c")}
    streams = {prompt: generator.stream(prompt, seed=4, **options) for prompt in alone}
    pieces = {prompt: [] for prompt in alone}
    for _ in range(30):
        for prompt, stream in streams.items():
            pieces[prompt] += [piece for piece in [next(stream, None)] if piece is not None]
        generator.generate(["other"], max_new_tokens=5)
    assert pieces == alone
    assert all(vars(generator)[name] is value for name, value in before.items())
    assert vars(generator).keys() == before.keys()


def test_the_loop_copies_neither_weights_nor_cache(generator):
    """In the compiled loop, only the in-place update creates an array of the cache's shape, and no weights are
    stacked."""
    state = start(generator, limits=[8, 8])
    program = device.decode.lower(generator.family, generator.params, state, np.int32(8), np.zeros(2, bool)).compile()
    text = program.as_text()
    shape = ",".join(map(str, state.cache.keys[0].shape))
    copies = re.findall(rf"= f32\[{shape}\]\S* (?:copy|transpose|convert|pad|concatenate)\(", text)
    assert not copies
    assert f"f32[{shape}]" in text  # the pattern matches the cache
    query = generator.params["layers"][0]["attention"]["query"].shape
    assert f"f32[{','.join(map(str, query))}]" in text  # weights are passed layer by layer
    assert f"f32[{','.join(map(str, (2, *query)))}]" not in text
    cache_bytes = sum(x.nbytes for x in jax.tree.leaves(state.cache))
    assert program.memory_analysis().alias_size_in_bytes >= cache_bytes  # donated, not copied
    assert program.memory_analysis().temp_size_in_bytes < cache_bytes


def test_a_new_row_is_inserted_without_a_copy_of_the_others(generator):
    state, new = (jax.eval_shape(lambda limits=limits: start(generator, limits)) for limits in ([8] * 16, [8]))
    memory = device.insert.lower(state, new, np.int32(3)).compile().memory_analysis()
    cache_bytes = sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(state.cache))
    assert memory.alias_size_in_bytes >= cache_bytes
    assert memory.temp_size_in_bytes < cache_bytes / 4


def test_lengths_become_few_shapes(monkeypatch):
    monkeypatch.setattr(shapes, "PIECE", 64)
    assert [shapes.prompt_slots(length, 300) for length in (1, 32, 33, 64, 65, 129)] == [32, 32, 64, 64, 128, 192]
    assert shapes.prompt_slots(20, 24) == 24, "no more than the context"
    assert [shapes.rooms(new) for new in (10, 512, 513, 1500)] == [[10], [512], [512, 513], [512, 1024, 1500]]


def test_rates_use_the_tokens_and_times_that_they_name():
    timing = Timing(prompt_tokens=60, new_tokens=22, completions=2)
    timing.add(3.0, prefill_seconds=3.0)
    timing.add(2.0)
    assert (timing.tokens_per_second, timing.prefill_tokens_per_second, timing.decode_tokens_per_second) == (
        4.4,
        20,
        10,
    )
    timing.add(1.0, prefill_seconds=None)
    timing.add(1.0, prefill_seconds=1.0)
    assert timing.seconds == 7.0 and timing.prefill_tokens_per_second is timing.decode_tokens_per_second is None
