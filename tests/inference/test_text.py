"""Text is returned in whole characters and cut exactly before a stop string, wherever tokens split it."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gptjax.inference.text import TextStream, unknown_characters
from gptjax.tokenizer import ByteTokenizer, CharacterTokenizer


class Bytes:
    """A tokenizer whose tokens are bytes, so that every character outside of ASCII spans several tokens."""

    first_bytes = b" "  # like models that put a space before every text

    def decode_bytes(self, ids):
        return bytes(ids)


def pieces_of(data: bytes, stop=()):
    stream, pieces = TextStream(Bytes(), stop), []
    for byte in data:
        if stream.push(byte):
            break
        pieces.append(stream.take())
    stream.close()
    pieces.append(stream.take())
    assert "".join(pieces) == stream.text
    return pieces, stream


@given(st.text(max_size=30))
def test_any_text_is_returned_in_whole_characters(text):
    pieces, stream = pieces_of(text.encode())
    assert stream.text == text
    assert not any("\ufffd" in piece for piece in pieces) or "\ufffd" in text


@given(st.binary(max_size=30))
def test_any_bytes_decode_as_python_replaces_them(data):
    assert pieces_of(data)[1].text == data.decode("utf-8", "replace")


def test_an_incomplete_character_is_held_back_and_replaced_at_the_end():
    pieces, _ = pieces_of("é😀".encode()[:-1])
    assert pieces == ["", "é", "", "", "", "\ufffd"]


@pytest.mark.parametrize(
    "text, stop, expected",
    [
        ("one\ndef two", ["\ndef"], "one"),
        ("one\n\nde", ["\ndef"], "one\n\nde"),
        ("ababac!", ["abac"], "ab"),
        ("xEND", ["END"], "x"),
        ("END", ["END"], ""),
        ("abc", ["bc", "b"], "a"),
        ("ça va 😀 bien", ["😀"], "ça va "),
        ("no stop", [], "no stop"),
    ],
)
def test_text_is_cut_before_the_stop_string_and_no_part_of_it_is_shown(text, stop, expected):
    stream = pieces_of(text.encode(), stop)[1]
    assert stream.text == expected
    assert stream.stopped == (expected != text)


def test_a_possible_beginning_of_a_stop_string_is_held_back():
    stream = TextStream(Bytes(), ["STOP"])
    shown = []
    for byte in b"aSTx":
        stream.push(byte)
        shown.append(stream.take())
    assert shown == ["a", "", "", "STx"]


@given(st.text("ab", max_size=40), st.lists(st.text("ab", min_size=1, max_size=4), max_size=3), st.randoms())
def test_the_cut_does_not_depend_on_where_tokens_end(text, stop, random):
    """With several bytes per token, the text is cut at the earliest stop string that is complete by then."""

    class Pieces:
        def decode_bytes(self, ids):
            return b"".join(parts[i] for i in ids)

    cuts = sorted(random.sample(range(1, len(text)), min(len(text) - 1, 5))) if len(text) > 1 else []
    parts = [part.encode() for part in (text[i:j] for i, j in zip([0, *cuts], [*cuts, len(text)]))]
    stream, shown = TextStream(Pieces(), stop), ""
    for token in range(len(parts)):
        if stream.push(token):
            break
        shown += stream.take()
    stream.close()
    shown += stream.take()
    assert shown == stream.text
    assert not any(s in stream.text for s in stop)
    assert text.startswith(stream.text)
    assert stream.stopped == any(s in text for s in stop)
    if not stream.stopped:
        assert stream.text == text
    elif len(stop) == 1:
        assert len(stream.text) == text.find(stop[0])


def test_without_stop_strings_nothing_is_held_back():
    assert pieces_of(b"abc")[0] == ["a", "b", "c", ""]


@pytest.mark.parametrize("begins, text", [(False, "  a b"), (True, " a b")])
def test_the_space_that_a_model_puts_before_a_document_is_not_part_of_the_text(begins, text):
    stream = TextStream(Bytes(), begins=begins)
    for byte in b"  a b":
        stream.push(byte)
    assert stream.text == text


def test_the_space_of_a_model_is_also_removed_after_a_control_token():
    class Pieces:
        first_bytes = b" "

        def decode_bytes(self, ids):
            return [b"", b" a", b" b"][ids[0]]

    stream = TextStream(Pieces(), begins=True)
    for token in (0, 1, 2):
        stream.push(token)
    assert stream.text == "a b"


def test_the_earliest_of_several_stop_strings_in_one_token_cuts():
    class Pieces:
        def decode_bytes(self, ids):
            return b"text A and B"

    stream = TextStream(Pieces(), ["B", "A", "and"])
    assert stream.push(0)
    assert (stream.text, stream.take()) == ("text ", "text ")


def test_characters_without_a_token():
    tokenizer = CharacterTokenizer("helo")
    assert unknown_characters(tokenizer, "hello") == ""
    assert unknown_characters(tokenizer, "hé ll\u2028é") == "é \u2028"
    assert unknown_characters(ByteTokenizer(), "é") == ""


def test_nothing_follows_a_stop_string_not_even_an_incomplete_character():
    class Pieces:
        def decode_bytes(self, ids):
            return b"a" if ids == [0] else "STOPé".encode()[:-1]

    stream = TextStream(Pieces(), ["STOP"])
    assert [stream.push(token) for token in (0, 1)] == [False, True]
    stream.close()
    assert (stream.text, stream.take()) == ("a", "a")


def test_no_stop_string_ends_a_text_before_its_minimum_of_tokens():
    for min_tokens, expected in ((0, "a"), (1, "a"), (2, "abca"), (5, "abcabc")):
        stream = TextStream(ByteTokenizer(), stop=["bc"], min_tokens=min_tokens)
        taken = ""
        for token in ByteTokenizer().encode("abcabc"):
            stopped = stream.push(token)
            taken += stream.take()
            if stopped:
                break
        stream.close()
        assert taken + stream.take() == stream.text == expected
        assert stream.stopped_by == ("bc" if len(expected) < 6 else None)
