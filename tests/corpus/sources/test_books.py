import gzip
import io
import zipfile

import pytest
from source_reading import documents, write

from gptjax.config import ConfigError
from gptjax.corpus.documents import BLANK

STORY = "It was the best of times, it was the worst of times.\n" * 20
PAGE = "<html><head><title>T</title></head><body><h1>One</h1><p>A&nbsp;<i>naïve</i> text.</p><p>Two.</p></body></html>"


def epub(chapters, spine=None, **members):
    """An EPUB with the given chapters: name → XHTML."""
    items = "".join(f'<item id="{name}" href="{name}" media-type="application/xhtml+xml"/>' for name in chapters)
    references = "".join(f'<itemref idref="{name}"/>' for name in spine or chapters)
    package = (
        '<package xmlns="http://www.idpf.org/2007/opf" xmlns:dc="http://purl.org/dc/elements/1.1/"><metadata>'
        f"<dc:language>en-GB</dc:language><dc:rights>CC0</dc:rights></metadata><manifest>{items}"
        '<item id="nav" href="nav.xhtml" media-type="application/xhtml+xml" properties="nav"/></manifest>'
        f'<spine><itemref idref="nav"/>{references}</spine></package>'
    )
    container = '<container><rootfiles><rootfile full-path="OEBPS/book.opf"/></rootfiles></container>'
    files = {"META-INF/container.xml": container, "OEBPS/book.opf": package, "OEBPS/nav.xhtml": PAGE}
    files |= {f"OEBPS/{name}": content for name, content in chapters.items()}
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in (files | {name.replace("__", "/"): content for name, content in members.items()}).items():
            archive.writestr(name, content)
    return buffer.getvalue()


def chapter(text):
    return (
        f'<?xml version="1.0" encoding="utf-8"?><html><head><title/></head><body><a id="x"/><p>{text}</p></body></html>'
    )


def test_files_of_every_kind_are_read_in_sorted_order(tmp_path):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("inner.txt", STORY)
        archive.writestr("cover.jpg", b"\0")
    write(
        tmp_path,
        {"a.txt": STORY, "b.md": "# One\n\ntext\n", "c.html": PAGE, "d.epub": epub({"1.xhtml": chapter("Three.")})},
    )
    write(
        tmp_path,
        {"e.txt.gz": gzip.compress(b"packed"), "f.zip": buffer.getvalue(), "g.pdf": b"%PDF", "h.adoc": "= T\n"},
    )
    found, skipped = documents("books", tmp_path)
    assert [one.text for one in found] == [
        STORY,
        "# One\n\ntext\n",
        "One\n\nA naïve text.\n\nTwo.",
        "Three.\n",
        "packed",
        STORY,
        "= T\n",
    ]
    assert found[5].uri == f"{tmp_path}/f.zip!inner.txt" and not skipped


def test_an_epub_is_read_in_the_order_of_its_spine(tmp_path):
    chapters = {
        "b.xhtml": chapter("First naïve."),
        "a.xhtml": chapter("Second."),
        "c.xhtml": chapter("Not in the spine."),
    }
    write(tmp_path, {"book.epub": epub(chapters, spine=["b.xhtml", "a.xhtml"])})
    ((book,), skipped) = documents("books", tmp_path)
    assert book.text == "First naïve.\n\n\nSecond.\n" and not skipped
    assert (book.license, book.language) == ("CC0-1.0", "en")


def test_books_are_read_in_their_encoding(tmp_path):
    write(
        tmp_path,
        {
            "a.txt": "Character set encoding: ISO-8859-1\n\n“naïve”".encode("cp1252"),
            "b.txt": "“naïve”".encode(),
            "c.htm": b'<meta charset="latin-1"><p>na\xefve',
            "d.txt": "naïve".encode("utf-16"),
        },
    )
    assert all("naïve" in one.text for one in documents("books", tmp_path)[0])


def test_removing_gutenbergs_text_and_line_breaks_are_options(tmp_path):
    header = "*** START OF THIS PROJECT GUTENBERG EBOOK IT ***\n\n"
    write(tmp_path, {"a.txt": header + "A line of some length, and another\none.\n"})
    assert documents("books", tmp_path)[0][0].text == "A line of some length, and another\none.\n"
    assert documents("books", tmp_path, unwrap=True)[0][0].text == "A line of some length, and another one.\n"
    assert documents("books", tmp_path, gutenberg=False)[0][0].text.startswith("*** START")


def test_bad_files_are_counted_and_the_others_read(tmp_path):
    bomb = io.BytesIO()
    with zipfile.ZipFile(bomb, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a.txt", b"x" * 20_000_000)
    encryption = '<encryption><CipherReference URI="OEBPS/1.xhtml"/></encryption>'
    whole = epub({"1.xhtml": chapter("text")})
    write(
        tmp_path,
        {
            "a.epub": b"not a zip",
            "b.epub": whole[: len(whole) // 2],
            "c.epub": epub({"1.xhtml": chapter("x")}, **{"META-INF__encryption.xml": encryption}),
            "d.epub": epub({"1.xhtml": chapter("x")}, OEBPS__book_opf="", **{"META-INF__container.xml": "<a>"}),
            "e.zip": bomb.getvalue(),
            "f.txt": b"\0\0",
            "g.txt": b" \n",
            "h.txt.gz": gzip.compress(STORY.encode() * 50)[:-9],
            "i.html": "<html></html>",
            "z.txt": "last",
        },
    )
    found, skipped = documents("books", tmp_path)
    assert found[-1].text == "last" and found[0].text.startswith("It was the best") and len(found) == 2
    assert skipped == {
        "unreadable: corrupt zip": 2,
        "unreadable: encrypted EPUB": 1,
        "unreadable: corrupt EPUB: truncated": 1,
        "unreadable: decompresses to more than 100 times its size": 1,
        "unreadable: NUL bytes: not a text": 1,
        "unreadable: truncated gzip": 1,
        BLANK: 2,
    }


def test_books_that_are_too_large_are_cut_or_skipped(tmp_path):
    write(tmp_path, {"a.txt": STORY * 3, "b.epub": epub({f"{i}.xhtml": chapter("word " * 300) for i in range(2)})})
    found, skipped = documents("books", tmp_path, max_document_bytes=2000)
    assert [one.text for one in found] == [(STORY * 3)[: 2000 // 53 * 53]]
    assert skipped == {"kept: books cut after 2,000 bytes": 1, "unreadable: EPUB of more than 2,000 bytes": 1}


def test_a_file_of_another_kind_is_refused(tmp_path):
    write(tmp_path, {"a.pdf": b"%PDF"})
    with pytest.raises(ConfigError, match="a file must end in one of"):
        documents("books", tmp_path / "a.pdf")
