"""Log-likelihoods in batches equal those of single sequences, on any number of devices, with few programs."""

import dataclasses
import itertools

import jax
import numpy as np
import pytest
from compiled_work import work_of
from random_models import MAX_POSITIONS, TOKENIZER, make_model

from gptjax.evaluation import loglikelihood
from gptjax.evaluation.loglikelihood import Continued, LogLikelihoods, mesh_of, rounded, row_lengths
from gptjax.inference.decode import decoding_params
from gptjax.model.decoder import Decoder
from gptjax.model.decoder_family import DecoderFamily
from gptjax.model.families import family_of
from gptjax.parallel.compilation import forward_options
from gptjax.parallel.placement import MeshPlacement
from gptjax.parallel.sharding import params_sharding
from gptjax.parallel.traffic import collectives_of
from gptjax.settings import MeshSettings

FORWARD = jax.jit(lambda config, params, tokens: Decoder(config).apply({"params": params}, tokens), static_argnums=0)


class WithoutBranches(DecoderFamily):
    branches = False


@pytest.fixture(scope="module")
def model():
    params, config = make_model()
    return params, config.model


def drawn(seed, count):
    """Requests of all valid lengths, most of which share a context with others."""
    draw = np.random.default_rng(seed)
    ids = np.arange(4, TOKENIZER.vocab_size)
    contexts = [draw.choice(ids, draw.integers(1, MAX_POSITIONS)) for _ in range(max(1, count // 3))]
    requests = []
    for _ in range(count):
        context = contexts[draw.integers(len(contexts))]
        more = draw.choice(ids, draw.integers(1, MAX_POSITIONS + 2 - len(context)))
        requests.append(Continued([*context.tolist(), *more.tolist()], len(context)))
    return requests


def alone(params, config, request):
    """(nats, hits) by a whole forward pass; tokens do not see the padding after them."""
    padded = np.zeros((1, MAX_POSITIONS), np.int32)
    padded[0, : len(request.tokens) - 1] = request.tokens[:-1]
    logits = np.asarray(FORWARD(config, params, padded)[0], np.float64)
    places, targets = np.arange(request.first - 1, len(request.tokens) - 1), np.array(request.tokens[request.first :])
    nats = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
    return nats[places, targets].sum(), int((logits.argmax(-1)[places] == targets).sum())


def make_scorer(family, params, devices=1, together=1):
    """Scores with `devices`, of which `together` share the parameters."""
    mesh = mesh_of(jax.devices()[:devices], together)
    if together > 1:
        family = dataclasses.replace(family, placement=MeshPlacement(MeshSettings()))
        params = jax.device_put(
            params, params_sharding(mesh_of(jax.devices()[:together], together), family.declarations)
        )
    return LogLikelihoods(family, decoding_params(family, params, "float32"), mesh)


def answers(family, params, requests, devices=1, together=1):
    scorer = make_scorer(family, params, devices, together)
    found = list(scorer.score(requests))
    assert sorted(index for index, _ in found) == list(range(len(requests)))
    return [score for _, score in sorted(found, key=lambda each: each[0])]


@pytest.mark.parametrize(
    "seed, count, devices, together, fields",
    [
        (0, 1, 1, 1, {}),
        (1, 24, 1, 1, {}),
        (2, 40, 8, 1, {}),
        (3, 24, 1, 1, dict(window=5, window_pattern="SL", logit_softcap=3.0)),
        (4, 24, 1, 1, dict(position="alibi")),
        (5, 24, 1, 1, dict(position="learned", layers="scan", remat="dots")),
        (6, 40, 5, 2, dict(num_kv_heads=2, vocab_size=288, tied_embeddings=False)),
        (7, 8, 2, 2, dict(num_experts=4, experts_per_token=2, num_layers=1, position="learned")),
    ],
    ids=["one", "many", "devices", "window", "alibi", "learned", "split", "split_experts"],
)
def test_batches_and_devices_change_nothing(seed, count, devices, together, fields):
    params, config = make_model(**fields)
    config = config.model
    requests = drawn(seed, count)
    for request, score in zip(requests, answers(family_of(config), params, requests, devices, together), strict=True):
        nats, hits = alone(params, config, request)
        assert score.nats == pytest.approx(nats, abs=1e-4) and score.hits == hits


def test_experts_drop_no_tokens():
    """Which tokens a full expert drops would depend on what else is in a row."""
    params, config = make_model(num_experts=4, experts_per_token=2, expert_capacity=1.0)
    all_take = dataclasses.replace(config, model=dataclasses.replace(config.model, expert_capacity=0.0))
    requests = drawn(8, 24)
    for request, score in zip(requests, answers(family_of(config.model), params, requests), strict=True):
        assert score.nats == pytest.approx(alone(params, all_take.model, request)[0], abs=1e-4)


def test_the_cores_of_a_cpu_share_the_parameters_memory(model):
    params, config = model
    scorer = make_scorer(family_of(config), params, devices=2)
    for x in jax.tree.leaves(scorer.params):
        assert len({each.data.unsafe_buffer_pointer() for each in x.addressable_shards}) == 1
        assert len(x.addressable_shards) == 2


@pytest.mark.parametrize(
    "fields", [dict(), dict(num_kv_heads=2, window=5, window_pattern="SL")], ids=["plain", "grouped and window"]
)
def test_heads_together_and_in_turn_give_the_same_scores(fields, monkeypatch):
    """Together is for accelerators; the other tests of this file have them in turn, as a CPU does."""
    params, config = make_model(**fields)
    requests, chosen = drawn(5, 20), []
    in_turn = answers(family_of(config.model), params, requests)

    def accelerator(*inputs, cpu, default):
        chosen.append(cpu.__name__)
        return default(*inputs)

    monkeypatch.setattr(jax.lax, "platform_dependent", accelerator)
    loglikelihood._program.cache_clear()
    jax.clear_caches()
    together = answers(family_of(config.model), params, requests)
    jax.clear_caches()
    assert "in_turn" in chosen
    np.testing.assert_allclose([x.nats for x in together], [x.nats for x in in_turn], atol=1e-4)
    assert [x.hits for x in together] == [x.hits for x in in_turn]


def test_the_program_is_compiled_for_reading(model, monkeypatch):
    params, config = model
    program, options = loglikelihood._program, []
    monkeypatch.setattr(loglikelihood, "_program", lambda of=(): options.append(dict(of)) or program(of))
    scorer = make_scorer(family_of(config), params)
    list(scorer.score(drawn(0, 2)))
    assert options == [forward_options(scorer.mesh, "float32")]


def test_devices_that_share_a_model_have_parts_of_it_and_of_the_work(sent, monkeypatch):
    """What they send each other is activations: no matrix, and no logits of a whole vocabulary."""
    # The program does not say how many pieces of logits a batch has; one piece can be counted.
    monkeypatch.setattr(jax.lax, "fori_loop", lambda first, end, body, made: body(first, made))
    params, config = make_model(feedforward_width=1024, vocab_size=4096, tied_embeddings=False)
    family, requests = family_of(config.model), drawn(0, 40)
    products = {}
    for together in (1, 2):
        scorer = make_scorer(family, params, together, together)
        list(scorer.score(requests))
        model = scorer.family, scorer.mesh, scorer.vocabulary, scorer.params
        program = loglikelihood._program().lower(*model, *sent.pop()).compile()
        products[together] = work_of(program)["products"]
    assert products[2] == pytest.approx(products[1] / 2, rel=0.01)
    held = sum(x.addressable_shards[0].data.nbytes for x in jax.tree.leaves(scorer.params))
    whole = sum(x.nbytes for x in jax.tree.leaves(params))
    assert held == pytest.approx(whole / 2, rel=0.01)
    activations = loglikelihood.TOKENS["cpu"] * config.model.width * 4
    assert max(each.bytes for each in collectives_of(program.as_text(), 2)) <= activations


def test_hits_are_counted(model):
    params, config = model
    tokens = [5, 9, 7]
    for _ in range(3):
        padded = np.zeros((1, MAX_POSITIONS), np.int32)
        padded[0, : len(tokens)] = tokens
        tokens.append(int(FORWARD(config, params, padded)[0, len(tokens) - 1].argmax()))
    wrong = [*tokens[:-1], (tokens[-1] + 1) % config.vocab_size]
    right, missed = answers(family_of(config), params, [Continued(tokens, 3), Continued(wrong, 3)])
    assert (right.hits, missed.hits) == (3, 2)
    for twin, hits in ((0, [0, 1]), (config.vocab_size - 1, [1, 0])):  # of two as likely ones the first counts
        embedding = params["embedding"].copy()
        embedding[twin] = embedding[tokens[-1]]
        asked = [Continued([*tokens[:-1], last], len(tokens) - 1) for last in (tokens[-1], twin)]
        found = answers(family_of(config), params | {"embedding": embedding}, asked)
        assert [score.hits for score in found] == hits


def test_a_family_without_branches_gives_the_same_result(model):
    params, config = model
    requests = drawn(3, 8)
    one, other = (answers(kind(config), params, requests) for kind in (DecoderFamily, WithoutBranches))
    np.testing.assert_allclose([each.nats for each in one], [each.nats for each in other], atol=1e-4)


@pytest.fixture
def sent(monkeypatch):
    """The inputs of the program, which is not run."""
    batches = []

    def instead(family, mesh, most, params, *inputs):
        batches.append(jax.device_get(inputs))
        return np.zeros(inputs[-2].shape[:2]), np.zeros(inputs[-2].shape[:2])

    monkeypatch.setattr(loglikelihood, "_score", instead)
    return batches


def test_a_shared_context_is_read_once(model, sent):
    params, config = model
    answers(family_of(config), params, [Continued([*range(10, 30), token, 5], 20) for token in range(4, 8)])
    ((tokens, segments, ends, positions, *_),) = sent
    assert (segments > 0).sum() == 20 + 4  # the last token of each continuation is only predicted
    assert ends[segments > 0].tolist() == [23] * 20 + [20, 21, 22, 23]
    assert positions[segments > 0].tolist() == [*range(20), 20, 20, 20, 20]
    assert tokens[0, 20:24].tolist() == [4, 5, 6, 7]


def test_only_positions_that_predict_a_continuation_leave_the_last_layer(model, sent):
    params, config = model
    contexts = [[number, *[5] * 99] for number in range(4, 12)]
    answers(family_of(config), params, [Continued([*each, *range(4, 44)], 100) for each in contexts])
    assert sent
    for tokens, *_, wanted, _, _, _, asked, _ in sent:
        T = tokens.shape[1]
        assert wanted.shape[1] == loglikelihood.num_wanted(T, 40 * (T // 139)) < T
        scored = asked[asked[..., 1] > 0]
        assert set(wanted.reshape(-1)[scored[:, 0]] % 139) == set(range(99, 139))


def test_what_contexts_begin_with_is_read_once(model, sent):
    """Such as the same examples before each question."""
    examples = [*range(10, 110)]
    contexts = [[*examples, question, *[5] * 9] for question in range(110, 116)]
    answers(family_of(model[1]), model[0], [Continued([*each, token], 110) for each in contexts for token in (4, 5)])
    ((_, segments, *_),) = sent
    assert (segments > 0).sum() == 100 + 6 * 10
    # A long row costs more attention, so contexts are only read together up to twice what they share.
    sent.clear()
    contexts = [[*examples[:20], question, *[5] * 99] for question in range(110, 116)]
    answers(family_of(model[1]), model[0], [Continued([*each, token], 120) for each in contexts for token in (4, 5)])
    assert sum((segments > 0).sum() for _, segments, *_ in sent) == 3 * (20 + 2 * 100)


@pytest.mark.parametrize(
    "fields", [dict(), dict(window=5, window_pattern="SL"), dict(position="alibi")], ids=["plain", "window", "alibi"]
)
def test_texts_that_branch_anywhere_have_their_own_scores(fields, monkeypatch):
    monkeypatch.setattr(loglikelihood, "SHARED", 1)
    params, config = make_model(**fields)
    draw = np.random.default_rng(0)
    requests = []
    for _ in range(60):  # of two tokens only, so that most texts share a beginning with others
        length = draw.integers(2, MAX_POSITIONS + 2)
        requests.append(Continued(draw.integers(5, 7, length).tolist(), int(draw.integers(1, length))))
    for request, score in zip(requests, answers(family_of(config.model), params, requests), strict=True):
        nats, hits = alone(params, config.model, request)
        assert score.nats == pytest.approx(nats, abs=1e-4) and score.hits == hits


def test_a_context_longer_than_a_batch_is_also_read_once(model, sent):
    params, config = model
    context = [5] * 3000
    answers(family_of(config), params, [Continued([*context, *[token] * 50], 3000) for token in range(4, 8)])
    assert sum((segments > 0).sum() for _, segments, *_ in sent) == 3000 + 4 * 49


def test_rows_are_full(model, sent):
    params, config = model
    draw = np.random.default_rng(0)
    lengths = draw.integers(20, 120, 300)
    answers(family_of(config), params, [Continued(draw.integers(4, 99, length), length // 2) for length in lengths])
    read = sum((batch[1] > 0).sum() for batch in sent)
    assert read == sum(lengths - 1) and read > 0.93 * sum(batch[1].size for batch in sent)


def test_any_lengths_need_few_programs(model, sent):
    params, config = model
    draw = np.random.default_rng(0)
    requests = [
        Continued([*[*range(4)], *draw.integers(4, 99, length)], draw.integers(1, length)) for length in range(2, 600)
    ]
    answers(family_of(config), params, requests * 2)
    assert len({str([x.shape for x in batch]) for batch in sent}) <= 16
    assert [rounded(length, 256) for length in (0, 1, 256, 257, 385, 512, 513)] == [0, 256, 256, 320, 448, 512, 640]


@pytest.mark.parametrize("seed", range(5))
def test_the_lengths_of_rows_are_the_best_of_all_choices(seed):
    draw = np.random.default_rng(seed)
    sizes = draw.integers(1, 900, 20).tolist()
    candidates = sorted({rounded(size, 256, steps=16) for size in sizes})

    def room(lengths):
        return sum(min(length for length in lengths if length >= size) for size in sizes)

    found = row_lengths(sizes)
    same_number = itertools.combinations(candidates, len(found))
    assert len(found) >= min(6, len(candidates))
    assert room(found) == min(room(lengths) for lengths in same_number if lengths[-1] == candidates[-1])


@pytest.mark.parametrize("request_", [Continued([1, 2], 0), Continued([1, 2], 2)], ids=["no context", "no token"])
def test_a_request_that_scores_nothing_is_refused(model, request_):
    params, config = model
    with pytest.raises(ValueError, match="scores from token"):
        answers(family_of(config), params, [request_])


MANY = [Continued([number, *range(10, 50)], 30) for number in range(4, 44)]


@pytest.mark.parametrize("positions", [32, 1 << 10], ids=["of positions", "of positions and of the vocabulary"])
def test_logits_in_pieces_are_those_of_the_whole(model, positions, monkeypatch):
    monkeypatch.setitem(loglikelihood.LOGITS, "cpu", 32 * TOKENIZER.vocab_size)
    monkeypatch.setattr(loglikelihood, "POSITIONS", positions)
    params, config = model
    for request, score in zip(MANY, answers(family_of(config), params, MANY), strict=True):
        assert score.nats == pytest.approx(alone(params, config, request)[0], abs=1e-4)


def test_a_batch_has_as_many_pieces_of_logits_as_its_continuations_need(model, sent, monkeypatch):
    monkeypatch.setitem(loglikelihood.LOGITS, "cpu", 32 * TOKENIZER.vocab_size)
    monkeypatch.setattr(loglikelihood, "POSITIONS", 32)
    answers(family_of(model[1]), model[0], MANY)
    for *_, asked, used in sent:
        assert asked.shape[1:] == (32, 2) and used[0] == -(-(asked[..., 1] > 0).sum() // 32) < len(asked)


@pytest.mark.parametrize("length, count", [(2, 600), (1, 3000)])
def test_more_tokens_may_be_scored_than_a_batch_has_positions(model, length, count):
    """The end of a context predicts the first token of each of its continuations, as in a text of short documents."""
    params, config = model
    draw = np.random.default_rng(0)
    kinds = [Continued([1, *draw.integers(4, TOKENIZER.vocab_size, length).tolist()], 1) for _ in range(20)]
    found = answers(family_of(config), params, [kinds[index % 20] for index in range(count)])
    for index, score in enumerate(found):
        nats, hits = alone(params, config, kinds[index]) if index < 20 else (found[index % 20].nats, score.hits)
        assert score.nats == pytest.approx(nats, abs=1e-4) and score.hits == hits


def test_long_contexts_are_read_together(model):
    params, _ = make_model(max_positions=1400, num_layers=1)
    config = dataclasses.replace(model[1], max_positions=1400, num_layers=1)
    tokens = np.random.default_rng(0).integers(4, TOKENIZER.vocab_size, 1300).tolist()
    (one,) = answers(family_of(config), params, [Continued(tokens, 1200)])
    logits = np.asarray(FORWARD(config, params, np.array([tokens[:-1]], np.int32))[0], np.float64)
    nats = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
    assert one.nats == pytest.approx(nats[np.arange(1199, 1299), tokens[1200:]].sum(), abs=2e-3)
