import io

import pytest
import sentencepiece

from gptjax.tokenizer.sentencepiece_file import KINDS, settings, without_dummy_prefix

DEFAULTS = dict(rewrites=True, dummy_prefix=True, removes_spaces=True, marks_spaces=True, spaces_are_suffixes=False)


def trained(**options):
    model, text = io.BytesIO(), ["the cat sat on the mat", "a dog and a fox"] * 20
    options = dict(model_type="bpe", vocab_size=40, hard_vocab_limit=False, minloglevel=3) | options
    sentencepiece.SentencePieceTrainer.train(sentence_iterator=iter(text), model_writer=model, **options)
    return model.getvalue()


@pytest.mark.parametrize(
    "option, expected",
    [
        (dict(), dict()),
        (dict(normalization_rule_name="identity"), dict(rewrites=False)),
        (dict(normalization_rule_name="nfkc_cf"), dict()),
        (dict(add_dummy_prefix=False), dict(dummy_prefix=False)),
        (dict(remove_extra_whitespaces=False), dict(removes_spaces=False)),
        (dict(treat_whitespace_as_suffix=True), dict(spaces_are_suffixes=True)),
        *((dict(model_type=kind), dict(kind=kind)) for kind in KINDS.values()),
    ],
)
def test_a_model_is_read_as_it_was_trained(option, expected):
    assert vars(settings(trained(**option))) == DEFAULTS | dict(kind="bpe") | expected


def test_an_empty_file_has_the_formats_defaults():
    assert vars(settings(b"")) == DEFAULTS | dict(kind="unigram", rewrites=False)
    assert not settings(bytes([26, 2, 40, 0])).marks_spaces, "no current trainer writes this"


def test_removing_the_prefix_changes_nothing_else():
    with_prefix = trained()
    without = without_dummy_prefix(with_prefix)
    assert vars(settings(without)) == vars(settings(with_prefix)) | dict(dummy_prefix=False)
    one, other = (sentencepiece.SentencePieceProcessor(model_proto=model) for model in (with_prefix, without))
    assert "".join(one.encode("the cat", out_type=str)) == "▁the▁cat"
    assert "".join(other.encode("the cat", out_type=str)) == "the▁cat"


@pytest.mark.parametrize(
    "unknown", [bytes([49, *range(8)]), bytes([53, *range(4)]), bytes([48, 0x80, 0x01]), b"\x32\x02ab"]
)
def test_unknown_fields_are_skipped(unknown):
    """The fields have every wire type: 64 bits, 32 bits, a varint of two bytes whose first is empty, and bytes."""
    assert settings(unknown + bytes([26, 2, 40, 0]) + unknown) == settings(bytes([26, 2, 40, 0]))
    inside = bytes([26, len(unknown) + 2]) + unknown + bytes([40, 0])
    assert settings(inside) == settings(bytes([26, 2, 40, 0]))


def test_the_last_value_of_a_repeated_setting_is_used():
    assert settings(bytes([26, 4, 24, 1, 24, 0])).dummy_prefix is False
    assert settings(bytes([26, 4, 24, 0, 24, 1])).dummy_prefix is True


def test_settings_are_not_read_from_other_messages():
    assert settings(bytes([10, 2, 24, 0])).dummy_prefix and settings(bytes([18, 2, 40, 0])).marks_spaces
