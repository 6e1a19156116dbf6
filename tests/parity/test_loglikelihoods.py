"""Log-likelihoods of texts, compared with those of transformers' Llama with our weights and tokenizer, directly and
through lm_eval's own `hf` model.
"""

import random

import pytest
from random_models import MAX_POSITIONS, TOKENIZER, make_model
from transformers_families import state_of

from gptjax.evaluation.answering import ModelAnswerer
from gptjax.evaluation.harness.model import make_model as make_harness_model
from gptjax.evaluation.requests import Scored
from gptjax.evaluation.tasks.records import Records

torch = pytest.importorskip("torch", reason="needs pip install 'gptjax[parity]'")
transformers = pytest.importorskip("transformers", reason="needs pip install 'gptjax[parity]'")

LLAMA = dict(num_kv_heads=2, feedforward_width=48, tied_embeddings=False, norm_epsilon=1e-6)
TOLERANCE = 1e-4  # nats of a whole continuation
REQUESTS = [
    Scored("The cat sat on the", " mat."),
    Scored("The cat sat on the ", "chair."),  # the space belongs to the continuation
    Scored("The cat sat on the", " mat and slept"),
    Scored("À la maison, 你好", " – ça va ?"),
    Scored("", "from nothing"),
    Scored("a context that is longer than what the model reads, which loses its beginning", " and ends"),
    *(Scored("same " * n, "x" * (n + 1)) for n in range(6)),
]
LONG = "more than what the model reads at once, " * 4
DOCUMENTS = ("short", "À la maison", LONG, LONG[: 2 * MAX_POSITIONS], LONG[: 2 * MAX_POSITIONS + 1])


@pytest.fixture(scope="module")
def ours():
    params, config = make_model(scale=0.2, **LLAMA)
    return params, ModelAnswerer(params, config, TOKENIZER)


@pytest.fixture(scope="module")
def theirs(ours):
    config = transformers.LlamaConfig(
        hidden_size=32,
        num_hidden_layers=2,
        vocab_size=TOKENIZER.vocab_size,
        intermediate_size=48,
        max_position_embeddings=MAX_POSITIONS,
        num_attention_heads=4,
        num_key_value_heads=2,
        rms_norm_eps=1e-6,
        rope_parameters=dict(rope_type="default", rope_theta=1e4),
        bos_token_id=TOKENIZER.eos_id,
        eos_token_id=TOKENIZER.eos_id,
    )
    model = transformers.LlamaForCausalLM(config).eval()
    state = state_of("llama", make_model(scale=0.2, **LLAMA)[1].model, ours[0])
    model.load_state_dict({name: torch.tensor(array) for name, array in state.items()}, strict=False)
    model.tie_weights()
    return model


@pytest.fixture(scope="module")
def their_tokenizer():
    """Bytes after the control tokens, and the begin token before every text."""
    tokenizers = pytest.importorskip("tokenizers")
    from transformers.convert_slow_tokenizer import bytes_to_unicode

    signs = bytes_to_unicode()
    first = TOKENIZER.vocab_size - 256
    vocabulary = {f"<{index}>": index for index in range(first)} | {signs[byte]: first + byte for byte in range(256)}
    made = tokenizers.Tokenizer(tokenizers.models.BPE(vocab=vocabulary, merges=[]))
    made.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    made.decoder = tokenizers.decoders.ByteLevel()
    begin = f"<{TOKENIZER.eos_id}>"
    made.post_processor = tokenizers.processors.TemplateProcessing(
        single=f"{begin} $A", special_tokens=[(begin, TOKENIZER.eos_id)]
    )
    return transformers.PreTrainedTokenizerFast(tokenizer_object=made, bos_token=begin, eos_token=begin)


def test_the_tokenizers_are_the_same(their_tokenizer):
    for request in REQUESTS:
        text = request.context + request.continuation
        assert their_tokenizer.encode(text) == [TOKENIZER.eos_id, *TOKENIZER.encode(text)]


def test_log_likelihoods_equal_those_of_one_forward_pass(ours, theirs, their_tokenizer):
    found = dict(ours[1].score(REQUESTS))
    for index, request in enumerate(REQUESTS):
        tokens = their_tokenizer.encode(request.context + request.continuation)
        count = len(tokens) - len(their_tokenizer.encode(request.context.rstrip()))
        tokens = tokens[-MAX_POSITIONS - 1 :]
        with torch.no_grad():
            logprobs = torch.log_softmax(theirs(torch.tensor([tokens[:-1]])).logits[0].double(), -1)[-count:]
        last = torch.tensor(tokens[-count:])
        expected = logprobs.gather(-1, last[:, None]).sum().item()
        assert found[index].tokens == count
        assert found[index].nats == pytest.approx(expected, abs=TOLERANCE)
        assert found[index].greedy == bool((logprobs.argmax(-1) == last).all())


def test_log_likelihoods_equal_those_of_lm_evals_own_model(ours, theirs, their_tokenizer):
    pytest.importorskip("lm_eval", reason="needs pip install 'gptjax[eval]'")
    from lm_eval.api.instance import Instance
    from lm_eval.models.huggingface import HFLM

    def lm_evals(begin: bool) -> HFLM:
        settings = dict(max_length=MAX_POSITIONS, batch_size=4, device="cpu", add_bos_token=begin)
        return HFLM(pretrained=theirs, tokenizer=their_tokenizer, **settings)

    other = lm_evals(begin=True)
    with Records(None, {}) as records:
        mine = make_harness_model(ours[1], records)
        asked = [Instance("loglikelihood", {}, (each.context, each.continuation), 0) for each in REQUESTS]
        pairs = list(zip(mine.loglikelihood(asked), other.loglikelihood(asked, disable_tqdm=True), strict=True))
        for (nats, greedy), (expected, expected_greedy) in pairs:
            assert nats == pytest.approx(expected, abs=TOLERANCE) and greedy == expected_greedy
        documents = [Instance("loglikelihood_rolling", {}, (text,), 0) for text in DOCUMENTS]
        whole = mine.loglikelihood_rolling(documents)
        without = lm_evals(begin=False)  # if it added a begin token, lm_eval would score that token as well
        assert whole == pytest.approx(without.loglikelihood_rolling(documents, disable_tqdm=True), abs=TOLERANCE)
        draw = random.Random(0)
        prompts = ["".join(draw.choices("abc def", k=draw.randint(5, 20))) for _ in range(6)]
        settings = {"until": ["e"], "max_gen_toks": 8, "do_sample": False}
        texts = [Instance("generate_until", {}, (prompt, dict(settings)), 0) for prompt in prompts]
        assert mine.generate_until(texts) == other.generate_until(texts, disable_tqdm=True)
