"""llama.cpp loads our GGUF files: the same ids, the same logits, the same greedy tokens, the same conversations.

It needs the package llama-cpp-python (extra `llamacpp`).
"""

import gguf_models
import numpy as np
import pytest
from gguf_models import CHAT, MODELS, write
from hostile_texts import HOSTILE, hostile_corpus
from huggingface_models import save_run
from random_models import FORWARD, MAX_POSITIONS, greedy_reference, logits_of

from gptjax import export
from gptjax.conversation import Message, Renderer
from gptjax.model import feedforward

llama_cpp = pytest.importorskip("llama_cpp")
TOKENIZERS = gguf_models.tokenizers()
# The largest difference of logits, as a part of the largest logit.
TOLERANCE = {"float32": 1e-5, "float16": 5e-3, "bfloat16": 2e-2, "q8_0": 1e-1}
NEW_TOKENS = 16


@pytest.fixture
def gelu_of_llama_cpp(monkeypatch):
    """Our GELU with numbers of 16 bits: llama.cpp looks its values up in a table of those, on the CPU."""
    exact = feedforward._gelu

    def table(x):
        return exact(x.astype(np.float16).astype(np.float32)).astype(np.float16).astype(np.float32)

    monkeypatch.setattr(feedforward, "_gelu", table)
    FORWARD.clear_cache()
    yield
    FORWARD.clear_cache()


def opened(path, **options):
    numbers = dict(type_k=0, type_v=0)  # float32; the cache would have 16 bits
    options = dict(n_ctx=MAX_POSITIONS, n_threads=1, logits_all=True, verbose=False) | numbers | options
    return llama_cpp.Llama(str(path), **options)


@pytest.mark.parametrize("name", TOKENIZERS)
def test_texts_have_the_same_ids_and_no_control_token(name, tmp_path):
    tokenizer = TOKENIZERS[name]
    write(tmp_path / "m.gguf", "qwen3", tokenizer)
    model = opened(tmp_path / "m.gguf")
    texts = [text for text in [*HOSTILE, *hostile_corpus(seed=6)] if text and "\0" not in text]
    if tokenizer.file_name == "tokenizer.model":
        texts = [text for text in texts if "▁" not in text]  # llama.cpp reads it as a space
    if name == "qwen":
        texts = [text for text in texts if tokenizer.decode(tokenizer.encode(text)) == text]  # it does not normalize
    assert len(texts) > 900
    for text in texts:
        assert model.tokenize(text.encode(), add_bos=False, special=False) == tokenizer.encode(text), text
    assert model.tokenize(b"Hi") == [tokenizer.eos_id, *tokenizer.encode("Hi")], "the begin token of these models"


@pytest.mark.parametrize("name, dtype", [*((name, "float32") for name in MODELS), *(("qwen3", d) for d in TOLERANCE)])
def test_a_prompt_has_the_same_logits_and_the_same_greedy_continuation(name, dtype, tmp_path, gelu_of_llama_cpp):
    tokenizer = TOKENIZERS["bpe"]
    params, config, *_ = write(tmp_path / "m.gguf", name, tokenizer, dtype)
    model = opened(tmp_path / "m.gguf")
    text = "def f(x):\n    return x + 1  # longer than windows of 8 tokens"
    prompt = [tokenizer.eos_id, *tokenizer.encode(text)][:28]
    assert len(prompt) + NEW_TOKENS <= MAX_POSITIONS
    expected = logits_of(params, config, prompt)
    model.eval(prompt)
    difference = np.abs(model.scores[: len(prompt)] - expected).max()
    assert difference <= TOLERANCE[dtype] * np.abs(expected).max()
    if dtype == "float32":
        written = [token for token, _ in zip(model.generate(prompt, temp=0.0), range(NEW_TOKENS))]
        assert written == greedy_reference(params, config, prompt, NEW_TOKENS)


def test_the_table_of_gelu_changes_logits_by_less_than_a_thousandth(tmp_path):
    tokenizer = TOKENIZERS["bpe"]
    params, config, *_, notes = write(tmp_path / "m.gguf", "gemma3", tokenizer)
    assert any("GELU" in note for note in notes)
    model = opened(tmp_path / "m.gguf")
    prompt = tokenizer.encode("def f(x):\n    return x + 1")
    expected = logits_of(params, config, prompt)
    model.eval(prompt)
    difference = np.abs(model.scores[: len(prompt)] - expected).max() / np.abs(expected).max()
    assert 1e-5 < difference < 1e-3


@pytest.mark.parametrize("name", ["bpe", "byte", "llama3"])
def test_the_template_in_the_file_writes_conversations_as_our_renderer(name, tmp_path):
    from llama_cpp.llama_chat_format import Jinja2ChatFormatter

    tokenizer = TOKENIZERS[name]
    write(tmp_path / "m.gguf", "qwen3", tokenizer)
    model = opened(tmp_path / "m.gguf")
    begin, end = (model._model.token_get_text(token) for token in (model.token_bos(), model.token_eos()))
    messages = [Message("system", "Be brief."), Message("user", "Hello\n world")]
    shaped = Jinja2ChatFormatter(model.metadata["tokenizer.chat_template"], end, begin)(
        messages=[message._asdict() for message in messages]
    )
    ids = model.tokenize(shaped.prompt.encode(), add_bos=False, special=True)
    assert ids == [tokenizer.eos_id, *Renderer(CHAT, tokenizer).prompt(messages).tolist()]
    assert model.token_eos() == tokenizer.control_ids[CHAT.end]


def test_the_export_compares_its_file_with_llama_cpp(tmp_path, capsys):
    save_run(tmp_path / "run", **MODELS["qwen3"])
    export.flags.parse(["export", f"--workdir={tmp_path / 'run'}", f"--output={tmp_path / 'mine'}", "--format=gguf"])
    export.main([])
    said = capsys.readouterr().out
    assert "read back: its numbers equal those of the run" in said
    assert "in llama.cpp: its logits differ from those of the run by" in said
