import codecs

import pytest

from gptjax.corpus.formats import encoding
from gptjax.corpus.formats.encoding import decode, of_head, unix_lines

TEXTS = {
    "zh": "四月的第一天，天气晴朗而寒冷，时钟敲了十三下。\n人工智能是计算机科学的一个分支，它企图了解智能的实质。",
    "zh-Hant": "四月的第一天，天氣晴朗而寒冷，時鐘敲了十三下。\n人工智慧是電腦科學的一個分支。",
    "ja": "吾輩は猫である。名前はまだ無い。\nどこで生れたかとんと見当がつかぬ。",
    "ko": "모든 국민은 법 앞에 평등하다.\n누구든지 성별 종교 또는 사회적 신분에 의하여 차별을 받지 아니한다.",
    "ru": "Был холодный ясный апрельский день,\nи часы пробили тринадцать.",
    "el": "Ήταν μια λαμπερή, κρύα μέρα του Απρίλη\nκαι τα ρολόγια χτυπούσαν δεκατρείς.",
    "cs": "Příliš žluťoučký kůň úpěl ďábelské ódy.\nNechť již hříšné saxofony rozezvučí síň.",
    "fr": "Le café était fermé, où l’été dernier nous avions mangé des crêpes à la crème.\nÉlève, forêt.",
    "en": "“Smart” quotes – with dashes.\nThe rest is plain ASCII, and it costs £5 or ½ of that. "
    + "More of it. " * 20,
}
ENCODINGS = [
    *(("zh", "gbk"), ("zh", "gb18030"), ("zh-Hant", "big5"), ("ja", "shift_jis"), ("ja", "euc-jp"), ("ko", "euc-kr")),
    *(("ru", "cp1251"), ("ru", "koi8-r"), ("el", "iso-8859-7"), ("cs", "iso-8859-2"), ("cs", "cp1250")),
    *(("fr", "cp1252"), ("en", "cp1252")),
    *((language, name) for language in TEXTS for name in ("utf-8-sig", "utf-16", "utf-32")),
    *((language, name) for language in ("en", "fr", "ru") for name in ("utf-16-le", "utf-16-be")),
    *((language, "utf-8") for language in TEXTS),
]


@pytest.mark.parametrize("language, name", ENCODINGS)
def test_the_encoding_of_a_text_is_detected(language, name):
    pytest.importorskip("resiliparse")
    text = TEXTS[language]
    found = decode(text.encode(name))
    assert found.text == text and not found.damage
    assert (found.how == "mark") == (name in ("utf-8-sig", "utf-16", "utf-32"))
    assert (found.how == "utf-8") == (name == "utf-8")
    if name not in ("utf-16-le", "utf-16-be"):  # a beginning with only one zero byte is not enough for them
        encoding, mark = of_head(text.encode(name)[:160], detect=True)
        rest = text.encode(name)[mark:]
        assert rest.decode(encoding) == text


@pytest.mark.parametrize("language", ["zh", "ja", "ko", "ru", "fr"])
def test_a_bad_byte_does_not_change_the_encoding(language):
    raw = bytearray((TEXTS[language] * 3).encode())
    raw[len(raw) // 2] = 0xFF
    found = decode(bytes(raw))
    assert found.encoding == "utf-8" and found.damage.startswith("at byte ")
    assert 0 < found.text.count("\ufffd") < 5


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
        (b"# coding: punycode\nna\xefve", "naïve"),  # not an encoding to try
        (b"# coding: no-such-thing\nna\xefve", "naïve"),
        (b"caf\xed\xa0\x80", "caf\ufffd\ufffd\ufffd"),  # a lone surrogate
        (b"\x81", "\ufffd"),
        (b"\x7fELF\0\1\0\2\0", "\x7fELF\0\1\0\2\0"),  # not UTF-16
        (b"", ""),
    ],
)
def test_decode_finds_the_encoding_and_replaces_bad_bytes(raw, text):
    assert unix_lines(decode(raw).text).endswith(text)


@pytest.mark.parametrize(
    "raw, told, text",
    [
        ("é".encode(), "iso-8859-1", "é"),
        ("é".encode("latin-1"), "iso-8859-1", "é"),
        ("“é”".encode("cp1252"), "iso-8859-1", "“é”"),
        ("こんにちは".encode("iso2022_jp"), "iso-2022-jp", "こんにちは"),
        (b"\xef\xbb\xbfa", "latin-1", "a"),
        ("a€".encode("utf-16"), "utf-8", "a€"),
        (b"a", "no-such-charset", "a"),
        ("мир".encode("koi8-r"), "KOI8-R", "мир"),
    ],
)
def test_the_encoding_that_a_server_declares_is_used(raw, told, text):
    assert decode(raw, [told]).text == text


def test_without_detection_text_without_a_byte_order_mark_is_utf8():
    assert decode("é".encode("latin-1"), ["latin-1"], detect=False).text == "\ufffd"
    assert decode("é".encode("utf-16"), detect=False).text == "é"


def test_the_head_of_a_file_declares_its_encoding():
    unmarked = "one line\nand another\n".encode("utf-16-le")
    assert encoding.of_head(unmarked, detect=True) == ("utf-16-le", 0)
    assert encoding.of_head(unmarked, detect=False) == ("utf-8", 0)
    assert encoding.of_head(b"abc\xc3", detect=True) == ("utf-8", 0)  # a character that is cut at the end of the head


def test_text_that_resembles_an_encoding_is_not_read_in_it():
    assert encoding.decode("a b\n".encode("utf-16-le") + b"\n").encoding == "utf-8"  # an incomplete character
    assert encoding.decode(b"caf\xe9 \\n", ["unicode_escape"]).text == "café \\n"  # not a text encoding
    assert encoding.decode(rb"\usepackage[applemac]{inputenc}" + b" caf\x8e").text.endswith(" café")


@pytest.mark.parametrize(
    "declared, character, larger",
    [
        ("us-ascii", "“", "cp1252"),
        ("iso-8859-1", "“", "cp1252"),
        ("latin5", "€", "cp1254"),
        ("iso-8859-11", "€", "cp874"),
        ("tis-620", "€", "cp874"),
        ("gb2312", "镕", "gbk"),
        ("gbk", "㐁", "gb18030"),
        ("euc-kr", "똠", "cp949"),
        ("shift_jis", "①", "cp932"),
        ("big5", "嘅", "big5hkscs"),
    ],
)
def test_a_declared_encoding_may_stand_for_its_superset(declared, character, larger):
    found = decode(f"a {character} b".encode(larger), [declared])
    assert (found.text, found.how, found.damage) == (f"a {character} b", "declared", "")
