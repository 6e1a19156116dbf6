import codecs

import pytest

from gptjax.corpus.formats.encoding import decode


@pytest.mark.parametrize(
    "raw, text",
    [
        ("naïve\r\ncafé\r".encode(), "naïve\ncafé\n"),
        (codecs.BOM_UTF8 + b"x", "x"),
        (codecs.BOM_UTF16_LE + "naïve".encode("utf-16-le"), "naïve"),
        (codecs.BOM_UTF32_BE + "naïve".encode("utf-32-be"), "naïve"),
        ("“naïve”".encode("cp1252"), "“naïve”"),
        ("Character set encoding: ISO-8859-2\n\nžluťoučký".encode("iso-8859-2"), "ISO-8859-2\n\nžluťoučký"),
        ("Character set encoding: ISO-8859-1\n\nnaïve “x”".encode(), "naïve “x”"),  # valid UTF-8, whatever is declared
        (b'<?xml version="1.0" encoding="koi8-r"?>' + "мир".encode("koi8-r"), "мир"),
        (b'<meta charset="shift_jis">' + "世界".encode("shift_jis"), "世界"),
        (b"\\usepackage[latin9]{inputenc}" + "1 €".encode("iso-8859-15"), "1 €"),
        (b"# coding: punycode\nna\xefve", "naïve"),  # nothing to be tried
        (b"# coding: no-such-thing\nna\xefve", "naïve"),
        (b"\x81", "\ufffd"),
        (b"", ""),
    ],
)
def test_decode(raw, text):
    assert decode(raw).endswith(text)
