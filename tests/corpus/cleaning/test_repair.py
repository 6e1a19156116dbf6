import unicodedata

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from gptjax.corpus.cleaning import repair as module
from gptjax.corpus.cleaning.repair import REPAIRS, repair


@pytest.mark.parametrize(
    "text, mended, names",
    [
        ("caf\xc3\xa9 and na\xc3\xafve", "café and naïve", ["encoding"]),
        ("â€œquotedâ€\x9d", "“quoted”", ["encoding"]),
        ("\xd0\xbf\xd1\x80\xd0\xb8\xd0\xb2\xd0\xb5\xd1\x82", "привет", ["encoding"]),  # UTF-8 read as Latin-1
        ("РџСЂРёРІРµС‚", "Привет", ["encoding"]),  # and as Windows-1251
        ("a line\ncafÃ©\n<b>&amp;</b> “so”", "a line\ncafé\n<b>&amp;</b> “so”", ["encoding"]),
        ("one\r\ntwo\rthree", "one\ntwo\nthree", ["line ends"]),
        ("page\x0cbreak\u2028line", "page\nbreak\nline", ["line ends"]),
        ("\ufeffzero\x00 so\xadft", "zero soft", ["invisible characters"]),
        ("\x1b[31mred\x1b[0m\x07", "red", ["invisible characters"]),
        ("no\xa0break, thin\u2009space", "no break, thin space", ["spaces"]),
        ("ﬁne ﬄoor", "fine ffloor", ["ligatures"]),
        ("e\u0301", "é", ["composition"]),
        ("\x00", "", ["invisible characters"]),
    ],
)
def test_damage_is_repaired(text, mended, names):
    assert repair(text) == (mended, tuple(names)) and set(names) <= set(REPAIRS)
    assert repair(mended) == (mended, ())


@pytest.mark.parametrize(
    "text",
    [
        "plain ASCII\twith tabs\n",
        "“curly”, naïve, «é» – ¿qué? Ärger… à la carte",
        "С «словом», до—свидания: „цитата“ и «é»",
        "全角，标点　ＡＢＣ",  # full-width characters are not changed
        "<p>&amp;&eacute;</p>",
        "▁ is not a space",  # left to the tokenizer
        "می\u200cخواهم 👩\u200d👩\u200d👧",  # joiners carry meaning
    ],
)
def test_correct_text_is_not_changed(text):
    assert repair(text) == (text, ())


def test_code_keeps_characters_that_may_be_intended():
    text = 'BROKEN = "cafÃ©\xa0e\u0301\x0c"\r\n'
    assert repair(text, code=True) == (text.replace("\r\n", "\n"), ("line ends",))


def test_ftfy_gets_only_lines_that_look_broken(monkeypatch):
    seen = []
    monkeypatch.setattr(module, "_ftfy", lambda: lambda line: seen.append(line) or line)
    repair("naïve\ncafÃ©\n" + "plain line\n" * 100)
    assert seen == ["cafÃ©"]
    repair("nothing to see, “really”\n" * 100)
    assert len(seen) == 1


@settings(max_examples=200, deadline=None)
@given(st.text(max_size=40))
@example("Î\x1f\x87")  # U+0387, which NFC replaces
def test_a_second_repair_changes_at_most_the_encoding(text):
    mended, names = repair(text)
    assert unicodedata.is_normalized("NFC", mended) and "\r" not in mended and bool(names) == (mended != text)
    mended.encode()
    again = set(repair(mended)[1])
    # Letters may look wrongly decoded once nothing separates them. Those that they stand for may have to be composed.
    assert not again or ("encoding" in again and again <= {"encoding", "composition"})
