import gzip
import re
import threading
from collections import Counter
from pathlib import Path

import fsspec
import pytest
import zstandard
from warc_files import HTML, PARAGRAPH, chunked, conversion, page, record, response, write

from gptjax.config import ConfigError
from gptjax.corpus.sources import pages, web

PAGES = Path(__file__).parent / "pages"


def documents(path, **options):
    """(documents, what was skipped) of a web source."""
    options, skipped = {**web.OPTIONS, **options}, Counter()
    found = [document for piece in web.find(str(path), options) for document in web.read(piece, options, skipped)]
    return found, dict(skipped)


def words(path, **options):
    """(the word of each page of warc_files.page, what was skipped)."""
    found, skipped = documents(path, **options)
    return [re.search(r"The (\w+) leaves", document.text)[1] for document in found], skipped


# --- Text of pages ----------------------------------------------------------------------------------------------------


def tokens(text):
    """Words, or characters in scripts that do not separate words."""
    return Counter(part for word in re.findall(r"\w+", text) for part in (word if word[0] > "\u2e80" else [word]))


@pytest.mark.parametrize("name", sorted(path.stem for path in PAGES.glob("*.html")))
@pytest.mark.parametrize("extractor", pages.EXTRACTORS)
def test_the_main_text_of_pages_is_extracted(name, extractor):
    (document,), skipped = documents(PAGES / f"{name}.html", extractor=extractor)
    expected, found = tokens((PAGES / f"{name}.txt").read_text()), tokens(document.text)
    common = (expected & found).total()
    # Extractors are known to lose lists among paragraphs.
    least = {("trafilatura", "recipe"): 0.78, ("resiliparse", "recipe"): 0.84, ("resiliparse", "list"): 0.64}
    assert common / expected.total() >= least.get((extractor, name), 0.95)
    assert common / found.total() >= (0.99 if extractor == "trafilatura" else 0.9)
    charsets = {"shift_jis": "cp932, as declared", "wrong_charset": "cp1252, judging by its bytes"}
    assert skipped == ({f"kept: read as {charsets[name]}": 1} if name in charsets else {})


def test_lines_of_code_and_cells_of_tables_stay_separate():
    (document,), _ = documents(PAGES / "code.html")
    assert "    for word in words:\n        seen[word] = seen.get(word, 0) + 1\n" in document.text
    (document,), _ = documents(PAGES / "table.html")
    assert re.search(r"Little Corran\W+9\W+0\.8", document.text)


def test_headings_lists_tables_and_code_are_kept_as_markdown_by_choice():
    told = {
        name: documents(PAGES / f"{name}.html", structure="markdown")[0][0].text for name in ("code", "table", "list")
    }
    assert told["code"].startswith("# Counting words") and "```\ndef count(words):\n    seen = {}\n" in told["code"]
    assert re.search(r"\| River \| .*\n\|-+\|.*\n\| Aldwater \| 61 \|", told["table"])
    assert "\n- A sleeping bag" in told["list"] and "\n1. Ask for the key" in told["list"]
    with pytest.raises(ConfigError, match="structure = 'markdown': only with extractor"):
        documents(PAGES / "code.html", structure="markdown", extractor="resiliparse")


def test_the_language_that_a_page_declares_is_used():
    told = {Path(d.uri).stem: d.language for d in documents(PAGES)[0]}
    assert told == {
        **dict.fromkeys(told, "en"),
        "chinese": "zh",
        "shift_jis": "ja",
        "wrong_charset": "fr",
        "nested": "",
    }


def test_comments_are_an_option():
    assert "Linseed oil" in documents(PAGES / "blog.html")[0][0].text
    assert "Linseed oil" not in documents(PAGES / "blog.html", comments=False)[0][0].text


@pytest.mark.parametrize("declared", [True, False])
def test_the_charset_of_a_page_is_detected_and_counted(tmp_path, declared):
    text = "Был холодный ясный апрельский день, и часы пробили тринадцать. " * 10
    meta = '<meta charset="windows-1251">' if declared else ""
    page = f"<html><head>{meta}<title>x</title></head><body><article><p>{text}</p></article></body></html>"
    (tmp_path / "a.html").write_bytes(page.encode("cp1251"))
    (document,), skipped = documents(tmp_path / "a.html")
    assert text.strip() in document.text
    assert skipped == {f"kept: read as cp1251, {'as declared' if declared else 'judging by its bytes'}": 1}


# --- Limits -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("extractor", pages.EXTRACTORS)
def test_a_page_that_is_too_large_or_too_deep_is_left_out(tmp_path, extractor):
    (tmp_path / "a.html").write_text("<div>" * 100_000 + PARAGRAPH)
    (tmp_path / "b.html").write_text("".join(f"<p>{i}. {PARAGRAPH}</p>" for i in range(1000)))
    (tmp_path / "c.html").write_text("<p>" * 10_000 + "<br>" * 10_000 + f"<div><p>{PARAGRAPH}</div>" * 300)
    found, skipped = documents(tmp_path, extractor=extractor, max_html_bytes=10**6)
    assert [Path(document.uri).name for document in found] == ["b.html", "c.html"]
    assert skipped == {"page more than 250 elements deep": 1}
    assert documents(tmp_path / "b.html", max_html_bytes=1000) == ([], {"page of more than 1,000 bytes": 1})


def test_depth_is_counted_up_to_the_limit():
    assert pages.depth("<div><p>a<p>b<br><ul><li>c<li>d</ul></div><div></div>", 9) == 2
    assert pages.depth("</div></div><div>", 9) == 1
    assert pages.depth("<b>" * 50, 9) == 10


@pytest.mark.parametrize(
    "html, depth",
    [
        ("<svg>" + '<path d="M0 0"/>' * 260 + "</svg>", 1),
        ("<div>" + "<b>left open<i></div><div>" * 100, 3),
        ("<script>" + "if (a <b) x = '<div>';" * 300 + "</script><p><div><em>x</em></div>", 2),
        ("<!-- " + "<div>" * 300 + " --><SCRIPT>" + "<div>" * 300 + "</Script><div></div>", 1),
        ("<div>" + "</span></p></section>" * 300 + "<div></div></div>", 2),
        ("<div>" * 30 + "</div>" * 30 + "<my-icon/>" * 300, 30),
        ("<div>" * 300, 251),
        ("<svg>" + "<g>" * 300, 251),
    ],
)  # fmt: skip
def test_depth_is_that_of_elements_that_are_really_nested(html, depth):
    assert pages.depth(html, 250) == depth


def test_a_page_on_which_an_extractor_hangs_is_left_out(tmp_path, monkeypatch):
    def hang(html, options):
        while "ferry" in html:
            try:
                html.lower()
            except Exception:  # a library that catches every exception
                pass
        return html

    monkeypatch.setattr(pages, "_trafilatura", hang)
    (tmp_path / "a.html").write_text(HTML)
    (tmp_path / "b.html").write_text(page("bus"))
    found, skipped = documents(tmp_path, max_page_seconds=0.1)
    assert [Path(document.uri).name for document in found] == ["b.html"]
    assert skipped == {"unreadable: page of more than 0.1 seconds": 1}


def test_pages_can_be_read_in_other_threads(tmp_path):
    (tmp_path / "a.html").write_text(HTML)
    given = []
    thread = threading.Thread(target=lambda: given.append(words(tmp_path)))
    thread.start()
    thread.join()
    assert given == [(["ferry"], {})]


def test_exceptions_of_a_library_are_counted(tmp_path, monkeypatch):
    def fail(html, options):
        raise RecursionError

    monkeypatch.setattr(pages, "_trafilatura", fail)
    (tmp_path / "a.html").write_text(HTML)
    assert documents(tmp_path) == ([], {"unreadable: page without extraction (RecursionError)": 1})


def test_a_lone_surrogate_in_an_entity_is_dropped(tmp_path):
    (tmp_path / "a.html").write_text(HTML.replace("ferry", "ferry&#xD800;&#0;"))
    for extractor in pages.EXTRACTORS:
        (document,), _ = documents(tmp_path, extractor=extractor)
        document.text.encode()
        assert "\0" not in document.text


# --- Archives ---------------------------------------------------------------------------------------------------------


def test_a_document_has_its_address_and_record(tmp_path):
    records = [response("https://a.org/1", page("bus")), response("https://b.org/2", page("train"))]
    path = write(tmp_path / "a.warc.gz", records)
    found, skipped = documents(path)
    assert [document.uri for document in found] == [f"https://a.org/1 {path}:1", f"https://b.org/2 {path}:2"]
    assert [document.language for document in found] == ["en", "en"] and not skipped
    assert found[0].text.startswith("The bus leaves the island at seven")


def test_only_pages_are_read(tmp_path):
    records = [
        record("warcinfo", "", b"software: none\r\n", "application/warc-fields"),
        record("request", "https://a.org/", b"GET / HTTP/1.1\r\n\r\n", "application/http; msgtype=request"),
        response("https://a.org/gone", page("boat"), status="404 Not Found"),
        response("https://a.org/there", page("boat"), status="301 Moved Permanently"),
        response("https://a.org/image", b"\x89PNG", content_type="image/png"),
        response("https://a.org/page", page("bus"), content_type="application/xhtml+xml"),
        record("resource", "<https://a.org/saved>", page("cart").encode(), "text/html"),
        record("resource", "https://a.org/style", b"p {}", "text/css"),
        record("metadata", "https://a.org/", b"{}", "application/json"),
        record("revisit", "https://a.org/", b"HTTP/1.1 200 OK\r\n\r\n", "application/http; msgtype=response"),
        response("https://a.org/empty", "<html><body></body></html>"),
    ]
    path = write(tmp_path / "a.warc", records, compress=bytes)
    assert words(path) == (["bus", "cart"], {"HTTP status other than 200": 2, "not HTML": 2, "page without text": 1})
    assert documents(path)[0][1].uri == f"https://a.org/saved {path}:7"


def test_texts_of_wet_files_are_not_changed(tmp_path):
    records = [
        conversion("https://a.org/", "One line\n\n  and another\n", "deu,eng"),
        conversion("https://b.org/", " "),
    ]
    write(tmp_path / "a.warc.wet.gz", records)
    write(tmp_path / "a.warc.wat.gz", [record("metadata", "https://a.org/", b"{}", "application/json")])
    (document,), skipped = documents(tmp_path)
    assert (document.text, document.language) == ("One line\n\n  and another", "de")
    assert skipped == {"page without text": 1}


@pytest.mark.parametrize("coding", ["chunked", "gzip", "both"])
def test_http_encodings_are_decoded(tmp_path, coding):
    headers, body = {}, page("tram")
    if coding != "chunked":
        body, headers = gzip.compress(body.encode()), {"Content_Encoding": "gzip"}
    if coding != "gzip":
        body = chunked(body) if isinstance(body, str) else b"%x\r\n%s\r\n0\r\n\r\n" % (len(body), body)
        headers["Transfer_Encoding"] = "chunked"
    path = write(tmp_path / "a.warc.gz", [response("https://a.org/", body, **headers)])
    assert words(path) == (["tram"], {})


def test_archives_are_read_with_any_compression_and_from_remote_storage(tmp_path):
    records = [response(f"https://a.org/{word}", page(word)) for word in ("bus", "tram")]
    write(tmp_path / "a.warc.zst", records, zstandard.ZstdCompressor().compress)
    write(tmp_path / "b.warc.gz", [b"".join(records)])  # one member for all records
    system = fsspec.filesystem("memory")
    system.pipe("/c.warc.gz", (tmp_path / "b.warc.gz").read_bytes())
    try:
        assert words(tmp_path) == (["bus", "tram"] * 2, {})
        assert words("memory://c.warc.gz") == (["bus", "tram"], {})
    finally:
        system.rm("/", recursive=True)


# --- Broken archives --------------------------------------------------------------------------------------------------

THREE = [response(f"https://a.org/{word}", page(word)) for word in ("bus", "tram", "boat")]


def test_complete_records_of_a_truncated_archive_are_read(tmp_path):
    path = write(tmp_path / "a.warc.gz", THREE)
    path.write_bytes(path.read_bytes()[:-40])
    assert words(path) == (["bus", "tram"], {"unreadable: truncated gzip": 1, "unreadable: truncated WARC record": 1})
    path = write(tmp_path / "b.warc", THREE, bytes)
    path.write_bytes(path.read_bytes()[:-40])
    assert words(path) == (["bus", "tram"], {"unreadable: truncated WARC record": 1})


def test_only_the_corrupt_member_is_lost(tmp_path):
    members = [gzip.compress(record) for record in THREE]
    members[1] = members[1][:60] + b"\xff" * 60 + members[1][120:]
    (tmp_path / "a.warc.gz").write_bytes(b"".join(members))
    found, skipped = words(tmp_path)
    assert found[0] == "bus" and found[-1] == "boat"
    assert skipped.pop("unreadable: corrupt gzip") == 1 and len(skipped) <= 1


@pytest.mark.parametrize("length", [3, 99_999, 10**17])
def test_a_record_with_a_wrong_length_is_kept_and_counted(tmp_path, length):
    wrong = [THREE[0], response("https://a.org/tram", page("tram"), length=length), THREE[2]]
    path = write(tmp_path / "a.warc", wrong, bytes)
    assert words(path) == (["bus", "tram", "boat"], {"kept: WARC records whose stated length is wrong": 1})


def test_wrong_headers_are_counted(tmp_path):
    headless = THREE[1].replace(b"Content-Length", b"Content-Size")
    endless = b"WARC/1.0\r\n" + b"x" * 100_000 + b"\r\n\r\n"
    path = write(
        tmp_path / "a.warc", [b"not yet\r\n", THREE[0], headless, endless, b"\0" * 50, b"\r\n", THREE[2]], bytes
    )
    found, skipped = words(path)
    assert found == ["bus", "boat"]
    assert skipped == {"unreadable: bytes between WARC records": 1, "unreadable: corrupt WARC header": 2}


def test_a_page_with_wrong_chunk_sizes_is_cut_and_counted(tmp_path):
    body = chunked(page("tram"), sizes=lambda size: size + 2 if size < 100 else size)
    unchunked = response("https://a.org/cart", page("cart"), Transfer_Encoding="chunked")
    path = write(tmp_path / "a.warc.gz", [response("https://a.org/", body, Transfer_Encoding="chunked"), unchunked])
    assert words(path) == (["tram", "cart"], {"kept: pages cut where their HTTP encoding is broken": 2})


def test_a_page_whose_compression_ends_early_is_cut_and_counted(tmp_path):
    body = gzip.compress("".join(f"<p>{i} {page('tram')}</p>" for i in range(1000)).encode())
    for wrong, reasons in (
        (body[:-100], {}),
        (body[:1500] + b"\xff" * 50 + body[1550:], {"kept: pages cut where their HTTP encoding is broken": 1}),
    ):
        path = write(tmp_path / "a.warc", [response("https://a.org/", wrong, Content_Encoding="gzip")], bytes)
        (document,), skipped = documents(path)
        assert "The tram leaves" in document.text and skipped == reasons
    path = write(tmp_path / "a.warc", [response("https://a.org/", b"no brotli", Content_Encoding="br")], bytes)
    assert documents(path) == ([], {"unreadable: corrupt WARC record": 1})


def test_a_page_that_is_a_decompression_bomb_is_skipped(tmp_path):
    bomb = gzip.compress(b"<p>" + b" " * 100_000_000)
    path = write(tmp_path / "a.warc", [response("https://a.org/", bomb, Content_Encoding="gzip"), THREE[0]], bytes)
    assert words(path) == (["bus"], {"page of more than 4,000,000 bytes": 1})


def test_a_record_that_is_too_large_is_skipped(tmp_path):
    large = response("https://a.org/film", b"\0" * 6_000_000, content_type="video/mp4")
    path = write(tmp_path / "a.warc", [THREE[0], large, THREE[2]], bytes)
    assert words(path) == (["bus", "boat"], {"WARC record of more than 5,048,576 bytes": 1})


def test_an_address_that_is_not_unicode_is_replaced(tmp_path):
    path = write(tmp_path / "a.warc", [THREE[0].replace(b"a.org/bus", b"a.org/\xff\xfe")], bytes)
    (document,), _ = documents(path)
    document.uri.encode()


# --- Options ----------------------------------------------------------------------------------------------------------


def test_pages_of_blocked_hosts_are_skipped(tmp_path):
    hosts = ["spam.example", "news.example", "notspam.example", "sub.spam.example:8080", "[broken"]
    path = write(tmp_path / "a.warc.gz", [response(f"https://{host}/", page(f"h{i}")) for i, host in enumerate(hosts)])
    (tmp_path / "hosts.txt").write_text("# not these\nSpam.example\n\n")
    found, skipped = words(path, blocked_hosts=str(tmp_path / "hosts.txt"))
    assert found == ["h1", "h2", "h4"] and skipped == {"blocked host": 2}

    (piece,) = web.find(str(path), web.OPTIONS)
    (blocking,) = web.find(str(path), {**web.OPTIONS, "blocked_hosts": str(tmp_path / "hosts.txt")})
    assert piece.version != blocking.version, "another list makes another corpus"


@pytest.mark.parametrize(
    "options, message",
    [
        ({"extractor": "boilerpipe"}, "extractor = 'boilerpipe': expected one of trafilatura, resiliparse"),
        ({"favor": "speed"}, "favor = 'speed': expected one of balanced, precision, recall"),
        ({"blocked_hosts": "nowhere"}, "blocked_hosts = 'nowhere': FileNotFoundError"),
    ],
)
def test_invalid_options_are_refused(tmp_path, options, message):
    (tmp_path / "a.html").write_text(HTML)
    with pytest.raises(ConfigError, match=message):
        documents(tmp_path, **options)


def test_a_missing_library_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "trafilatura", None)
    with pytest.raises(ConfigError, match=r"pages of the web need pip install 'gptjax\[corpus\]'"):
        documents(tmp_path)
