import bz2
import json
import zlib

from source_reading import documents, write

from gptjax.corpus.documents import BLANK

SENTENCE = (
    "Here is a text. This is an article's text, long enough to be no stub, with [[links|words]] in it, "
    "and {{cite|x}} some more words."
)
TEXT = "Here is a text. This is an article's text, long enough to be no stub, with words in it, and some more words."


def page(title, text, ns=0, more=""):
    return f"<page><title>{title}</title><ns>{ns}</ns>{more}<revision><id>1</id><text>{text}</text></revision></page>\n"


def dump(*pages):
    head = '<mediawiki xmlns="http://www.mediawiki.org/xml/export-0.11/" xml:lang="de"><siteinfo>'
    return head + "<base>https://de.wikipedia.org/wiki/Hauptseite</base></siteinfo>\n" + "".join(pages) + "</mediawiki>"


def test_the_articles_of_a_dump_are_read(tmp_path):
    pages = [
        page("Tom &amp; Jerry", SENTENCE),
        page("Moved", "#REDIRECT [[Tom]]", more='<redirect title="Tom"/>'),
        page("Verschoben", "#WEITERLEITUNG [[Tom]]"),
        page("Talk:Tom", SENTENCE, ns=1),
        page("Mercury", SENTENCE + "{{disambiguation}}"),
        page("Stub", "Short."),
        page("Nothing", ""),
    ]
    write(tmp_path, {"dewiki-pages-articles.xml": dump(*pages)})
    ((article,), skipped) = documents("wikipedia", tmp_path)
    assert article.text == f"Tom & Jerry\n\n{TEXT}\n"
    assert article.uri == "https://de.wikipedia.org/wiki/Tom_%26_Jerry"
    assert (article.license, article.language) == ("CC-BY-SA-4.0", "de")
    assert skipped == {
        "redirects": 2,
        "not in the namespace of articles": 1,
        "disambiguation pages": 1,
        "stubs of less than 100 characters": 1,
        BLANK: 1,
    }


def test_stubs_and_sections_are_options(tmp_path):
    write(tmp_path, {"a.xml": dump(page("A", "Short.\n== Notes ==\nA note."))})
    ((article,), _) = documents(
        "wikipedia", tmp_path, least_characters=1, sections_left_out=(), wiki_license="CC-BY-SA-3.0"
    )
    assert article.text == "A\n\nShort.\n\nNotes\n\nA note.\n" and article.license == "CC-BY-SA-3.0"


def test_dumps_and_wikiextractors_files_are_recognized_by_name(tmp_path):
    whole = dump(page("A", SENTENCE))
    extracted = f'<doc id="1" url="https://en.wikipedia.org/wiki?curid=1" title="B">\nB\n\n{TEXT}\n</doc>\n'
    write(tmp_path, {"enwiki-pages-articles1.xml-p10p30302.bz2": bz2.compress(whole.encode()), "AA/wiki_00": extracted})
    write(tmp_path, {"SOURCE": "not seen", "md5sums.txt": "not seen", "named-as-you-like": whole})
    assert len(documents("wikipedia", tmp_path)[0]) == 2
    assert len(documents("wikipedia", tmp_path / "named-as-you-like")[0]) == 1


def test_complete_articles_of_a_truncated_dump_are_kept(tmp_path):
    whole = dump(*(page(f"Title {i}", f"{SENTENCE} {i} {zlib.crc32(bytes(i))}") for i in range(5000))).encode()
    write(tmp_path, {"a.xml": whole[: len(whole) // 2], "b.xml.bz2": bz2.compress(whole, 1)[:-2000]})
    found, skipped = documents("wikipedia", tmp_path)
    assert len(found) > 5000
    assert skipped == {"unreadable: broken XML: truncated": 1, "unreadable: truncated bzip2": 1}


def test_wikiextractors_output_is_read(tmp_path):
    text = (
        '<doc id="1" url="http://en.wikipedia.org/wiki?curid=1" title="A &amp; B">\nA & B\n\n'
        f"A (; born 1942) &lt;x&gt; {TEXT}<br>\nReferences.\n\n</doc>\n"
        f'<doc id="2" url="http://en.wikipedia.org/wiki?curid=2" title="Stub">\nStub\n\n</doc>\n'
        f'<doc id="3" url="u" title="No end">\nNo end\n\n{TEXT}\n'
    )
    write(tmp_path, {"wiki_00": text})
    ((article,), skipped) = documents("wikipedia", tmp_path)
    assert article.text == f"A & B\n\nA (born 1942) <x> {TEXT}\n"
    assert (article.uri, article.language) == ("http://en.wikipedia.org/wiki?curid=1", "en")
    assert skipped == {BLANK: 1, "unreadable: article without an end": 1}


def test_wikiextractors_json_is_read(tmp_path):
    good = {"id": "1", "url": "https://fr.wikipedia.org/wiki?curid=1", "title": "A", "text": f"A\n\n{TEXT} \ud800"}
    write(tmp_path, {"wiki_00": json.dumps(good) + "\n" + '{"title": 3}\n{broken\n'})
    ((article,), skipped) = documents("wikipedia", tmp_path)
    assert article.text == f"A\n\n{TEXT} ?\n" and article.language == "fr"
    assert skipped == {"unreadable: broken JSON line": 2}


def test_bad_files_are_counted(tmp_path):
    entities = '<!DOCTYPE m [<!ENTITY x "y">]>' + dump(page("A", SENTENCE))
    write(
        tmp_path, {"a.xml": "", "b.xml": b"\0\1\2", "c.xml": entities, "d.xml.bz2": b"BZh9 not", "e.xml": "plain text"}
    )
    long_page = dump(page("Long", "x" * 5000), page("Fine", SENTENCE))
    write(tmp_path, {"f.xml": long_page})
    found, skipped = documents("wikipedia", tmp_path, max_line_bytes=4000)
    assert [one.text[:4] for one in found] == ["Fine"]
    assert sum(skipped.values()) == 6 and all(reason.startswith("unreadable: ") for reason in skipped)
