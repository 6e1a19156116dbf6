"""A written tokenizer, opened by `transformers`, gives our ids for texts and conversations, and our mask of answers."""

import random

import pytest
from hostile_texts import hostile_corpus
from sentencepiece_models import GEMMA, LLAMA, TEXT, sentencepiece_model
from their_tokenizers import MADE, write_folder

from gptjax.conversation import Message, Renderer, load_template
from gptjax.interop.tokenizer_folder import write_tokenizer
from gptjax.tokenizer import ByteTokenizer, load
from gptjax.tokenizer.training import train_sentencepiece

transformers = pytest.importorskip("transformers")

CHUNKS = [TEXT[i : i + 2000] for i in range(0, len(TEXT), 2000)]
TEMPLATES = ("chatml", "turns", "alpaca")
CONTROLS = {name for template in TEMPLATES for name in load_template(template).controls}
BPE = train_sentencepiece(CHUNKS, "bpe", 600).extended(CONTROLS)
TOKENIZERS = {
    "bpe": BPE,
    "byte": ByteTokenizer().extended(CONTROLS),
    "llama": sentencepiece_model("bpe", **LLAMA),
    "gemma": sentencepiece_model("bpe", **GEMMA),
}


def opened(folder, tokenizer, template=None, begin_id=None):
    write_tokenizer(folder, tokenizer, template, begin_id=begin_id, context=256)
    return transformers.AutoTokenizer.from_pretrained(folder)


@pytest.mark.parametrize("name", TOKENIZERS)
def test_transformers_gives_the_same_ids_for_two_thousand_hostile_texts(name, tmp_path):
    tokenizer, texts = TOKENIZERS[name], hostile_corpus(seed=5)
    theirs = opened(tmp_path, tokenizer)
    assert len(texts) > 2000
    for text, ids in zip(texts, tokenizer.encode_batch(texts)):
        found = theirs.encode(text, add_special_tokens=False, split_special_tokens=True)
        assert found == ids.tolist(), text
        assert theirs.decode(found) == tokenizer.decode(found)
        if not any(control in text for control in tokenizer.control_ids):
            assert theirs.encode(text, add_special_tokens=False) == found, text


@pytest.mark.parametrize("name", ["gpt2", "llama3", "qwen", "llama2"])
def test_a_tokenizer_of_theirs_is_written_again_with_the_same_ids(name, tmp_path):
    (tmp_path / "theirs").mkdir()
    write_folder(tmp_path / "theirs", MADE[name])
    ours = load(tmp_path / "theirs")
    original = transformers.AutoTokenizer.from_pretrained(tmp_path / "theirs")
    (tmp_path / "again").mkdir()
    again = opened(tmp_path / "again", ours.extended(["<|added|>"]))
    assert again.eos_token_id == ours.eos_id
    for text in hostile_corpus(seed=5)[:400]:
        if not any(control in text for control in ours.control_ids):
            assert original.encode(text, add_special_tokens=False) == ours.encode(text), text
            assert again.encode(text, add_special_tokens=False) == ours.encode(text), text
    assert again.encode("<|added|>", add_special_tokens=False) == [ours.vocab_size]


def test_a_text_begins_with_the_begin_token(tmp_path):
    theirs = opened(tmp_path, BPE, begin_id=BPE.eos_id)
    assert theirs("Hi").input_ids == [BPE.eos_id, *BPE.encode("Hi")]
    assert (theirs.bos_token_id, theirs.pad_token_id) == (BPE.eos_id, BPE.pad_id)


@pytest.mark.parametrize("name", TEMPLATES)
def test_conversations_have_the_ids_and_the_mask_of_our_renderer(name, tmp_path):
    template, begin = load_template(name), BPE.bos_id
    renderer, theirs = Renderer(template, BPE), opened(tmp_path, BPE, template, begin)
    assert theirs.eos_token_id == renderer.end_id
    draw = random.Random(0)
    words = ["Hello", " world", "\n", "é", " x = [1]", "日本", "{{ x }}", "  ", "\t?"]
    for _ in range(40):
        messages = [Message("system", "Be brief.")] * draw.randrange(2)
        for _ in range(draw.randrange(1, 3)):
            messages += [
                Message(role, "a" + "".join(draw.choices(words, k=draw.randrange(9)))) for role in ("user", "assistant")
            ]
        rows = [message._asdict() for message in messages]
        both = theirs.apply_chat_template(rows, return_dict=True, return_assistant_tokens_mask=True)
        expected = renderer.render(messages)
        assert both["input_ids"] == [begin, *expected.ids.tolist()]
        assert both["assistant_masks"] == [0, *expected.supervised.astype(int).tolist()]
        asked = theirs.apply_chat_template(rows[:-1], add_generation_prompt=True, return_dict=True)["input_ids"]
        assert asked == [begin, *renderer.prompt(messages[:-1]).tolist()]
