"""Every reader with broken input: nothing is raised, what is lost is counted, and documents are valid Unicode."""

import bz2
import gzip
import io
import json
import lzma
import tarfile
import zipfile
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import warc_files
import zstandard
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from source_reading import documents

from gptjax.config import RunError
from gptjax.corpus.config import source
from gptjax.corpus.engine import Task
from gptjax.corpus.sources import KEPT, KINDS, UNREADABLE
from gptjax.corpus.sources.listing import FailureLimit, list_sources
from gptjax.corpus.stages.extract import extract

PROSE = "It was late in the year, and the boats were already on the beach. Nobody spoke of the winter. " * 8
LINES = "".join(json.dumps({"text": f"{i} {PROSE}", "url": "https://a.org/"}) + "\n" for i in range(3))

CHAT = [{"role": "user", "content": "Who is there?"}, {"role": "assistant", "content": "It is me."}]


def table():
    return pa.table({"text": [PROSE, "two", None], "url": ["https://a.org/", "", None]})


def parquet():
    buffer = io.BytesIO()
    pq.write_table(table(), buffer)
    return buffer.getvalue()


def arrow():
    buffer = io.BytesIO()
    with pa.ipc.new_stream(buffer, table().schema) as writer:
        writer.write_table(table())
    return buffer.getvalue()


def zipped(**members):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name.replace("__", "/"), content)
    return buffer.getvalue()


def epub():
    package = (
        '<package xmlns="http://www.idpf.org/2007/opf"><metadata/><manifest>'
        '<item id="a" href="a.xhtml" media-type="application/xhtml+xml"/></manifest><spine><itemref idref="a"/></spine>'
        "</package>"
    )
    container = (
        '<container xmlns="urn:oasis:names:tc:opendocument:xmlns:container"><rootfiles>'
        '<rootfile full-path="a.opf" media-type="application/oebps-package+xml"/></rootfiles></container>'
    )
    members = {"META-INF/container.xml": container, "a.opf": package, "a.xhtml": f"<html><p>{PROSE}</p></html>"}
    return zipped(**{name.replace("/", "__"): text for name, text in members.items()})


def tarred(name, content):
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
        member = tarfile.TarInfo(name)
        member.size = len(content)
        archive.addfile(member, io.BytesIO(content))
    return buffer.getvalue()


WARC = [warc_files.response("https://a.org/", warc_files.page("bus")), warc_files.response("https://b.org/")]
CHUNKED = warc_files.response("https://c.org/", warc_files.chunked(warc_files.HTML), Transfer_Encoding="chunked")
LATEX = rf"\documentclass{{article}}\newcommand{{\x}}[1]{{#1}}\begin{{document}}\x{{{PROSE}}}\end{{document}}".encode()
JATS = f"<article><front/><body><sec><title>One</title><p>{PROSE}</p></sec></body></article>".encode()
UNARXIVE = json.dumps(
    {
        **{
            "paper_id": "1",
            "metadata": {"title": "T", "license": None},
            "abstract": {"text": PROSE},
            "ref_entries": {},
        },
        "body_text": [{"section": "One", "text": PROSE}],
    }
)
DUMP = (
    '<mediawiki xml:lang="en"><siteinfo><base>https://en.wikipedia.org/wiki/X</base></siteinfo><page><title>T</title>'
    f"<ns>0</ns><revision><text>''{PROSE}'' [[a|b]] {{{{c}}}}</text></revision></page></mediawiki>"
).encode()
EXTRACTED = f'<doc id="1" url="https://a.org/" title="T">\nT\n\n{PROSE}\n</doc>\n'.encode()
SEEDS = {
    ("text", "a.txt"): PROSE.encode(),
    ("text", "a.jsonl"): LINES.encode(),
    ("text", "a.json"): json.dumps([{"text": PROSE}, {"text": "b"}]).encode(),
    ("text", "a.jsonl.gz"): gzip.compress(LINES.encode()),
    ("text", "a.jsonl.bz2"): bz2.compress(LINES.encode()),
    ("text", "a.jsonl.xz"): lzma.compress(LINES.encode()),
    ("text", "a.jsonl.zst"): zstandard.ZstdCompressor().compress(LINES.encode()),
    ("text", "a.parquet"): parquet(),
    ("web", "a.warc"): b"".join([*WARC, CHUNKED]),
    ("web", "a.warc.gz"): b"".join(map(gzip.compress, WARC)),
    ("web", "a.warc.wet"): warc_files.conversion("https://a.org/", PROSE) * 2,
    ("web", "a.html"): warc_files.HTML.encode(),
    ("code", "a.py"): b"# SPDX-License-Identifier: MIT\n" + b"def first(numbers):\n    return numbers[0]\n" * 20,
    ("books", "a.txt"): f"*** START OF THE PROJECT GUTENBERG EBOOK X ***\n{PROSE}\n*** END OF THE".encode(),
    ("books", "a.html"): f"<html><body><p>{PROSE}</p></body></html>".encode(),
    ("books", "a.epub"): epub(),
    ("books", "a.zip"): zipped(a=b"", **{"b.txt": PROSE}),
    ("papers", "a.tex"): LATEX,
    ("papers", "a.tar.gz"): tarred("a.tex", LATEX),
    ("papers", "a.xml"): JATS,
    ("papers", "a.jsonl"): UNARXIVE.encode(),
    ("wikipedia", "a.xml"): DUMP,
    ("wikipedia", "a.xml.bz2"): bz2.compress(DUMP),
    ("wikipedia", "wiki_00"): EXTRACTED,
    ("tables", "a.parquet"): parquet(),
    ("tables", "a.arrow"): arrow(),
    ("tables", "a.jsonl"): LINES.encode(),
    ("pairs", "a.tsv"): b"one\tun\ntwo\tdeux\nthree\ttrois\n",
    ("pairs", "a.jsonl"): b'{"source": "one", "target": "un"}\n{"source": "two", "target": "deux"}\n' * 9,
    ("labelled", "a.tsv"): b"ham\tsee you there\nspam\tcall now\n",
    ("labelled", "a.jsonl"): b'{"text": "see you there", "label": "ham"}\n{"text": "call now", "label": "spam"}\n' * 9,
    ("preferences", "a.jsonl"): b'{"prompt": "one", "chosen": "two", "rejected": "four"}\n' * 9,
    ("preferences", "a.csv"): b"prompt,chosen,rejected\none,two,four\n",
    ("conversations", "a.jsonl"): json.dumps({"messages": CHAT}).encode() + b"\n",
    ("conversations", "a.csv"): b"prompt,completion\none,two\nthree,four\n",
    ("chat_preferences", "a.jsonl"): json.dumps({"prompt": CHAT[:1], "chosen": CHAT[1:2], "rejected": "no"}).encode()
    + b"\n",
    ("chat_preferences", "a.csv"): b"prompt,chosen,rejected\none,two,four\n",
    ("tables", "a.csv"): f'text,url\n"{PROSE}",https://a.org/\nb,c\n'.encode(),
}


def read(folder, kind, name, data, **options):
    """(documents, what was skipped) of a folder with this file; checks that the documents are valid."""
    (folder / name).write_bytes(data)
    found, skipped = documents(kind, folder, **options)
    for document in found:
        assert document.text
        "".join((document.text, document.uri, document.license, document.language)).encode()
    return found, dict(skipped)


def failures(skipped):
    return sum(count for reason, count in skipped.items() if reason.startswith(UNREADABLE))


def test_every_kind_is_tested():
    assert {kind for kind, _ in SEEDS} == set(KINDS)


@pytest.fixture(scope="module", params=SEEDS, ids="-".join)
def seed(request, tmp_path_factory):
    """(folder, kind, name, data)"""
    return tmp_path_factory.mktemp("seed"), *request.param, SEEDS[request.param]


def test_intact_input_is_read(seed):
    found, skipped = read(*seed)
    assert found and not failures(skipped)


# --- Mutations --------------------------------------------------------------------------------------------------------

TOKENS = [
    b"\0",
    b"\xff\xfe",
    b"\r\n\r\n",
    b"<",
    b"]]>",
    b'"',
    b"{",
    b"}",
    b"\\",
    b"&#xD800;",
    b"\\ud800",
    b"WARC/1.0\r\n",
]
TOKENS += [b"Content-Length: 99999999999999999\r\n", b"Transfer-Encoding: chunked\r\n", b"\x1f\x8b\x08", b"PK\x03\x04"]
PLACES = st.floats(0, 1, exclude_max=True)
EDITS = st.one_of(
    st.tuples(st.just("put"), PLACES, st.binary(max_size=8) | st.sampled_from(TOKENS)),
    st.tuples(st.just("over"), PLACES, st.binary(min_size=1, max_size=8)),
    st.tuples(st.just("cut"), PLACES, st.integers(1, 400)),
    st.tuples(st.just("repeat"), PLACES, st.integers(1, 400)),
    st.tuples(st.just("end"), PLACES, st.none()),
)


def mutated(data, edits):
    for edit, place, what in edits:
        at = int(place * len(data))
        if edit == "put":
            data = data[:at] + what + data[at:]
        elif edit == "over":
            data = data[:at] + what + data[at + len(what) :]
        elif edit == "cut":
            data = data[:at] + data[at + what :]
        elif edit == "repeat":
            data = data[:at] + data[at : at + what] + data[at:]
        else:
            data = data[:at]
    return data


@settings(max_examples=25, deadline=None, derandomize=True, database=None, suppress_health_check=list(HealthCheck))
@given(edits=st.lists(EDITS, min_size=1, max_size=6))
def test_no_content_of_a_file_raises(seed, edits):
    folder, kind, name, data = seed
    read(folder, kind, name, mutated(data, edits))


def test_a_table_whose_lengths_are_wrong_is_not_read_beyond_its_end(tmp_path):
    whole, offsets = SEEDS["tables", "a.arrow"], pa.array([PROSE, "two", None]).buffers()[1].to_pybytes()[:12]
    at = whole.index(offsets)
    wrong = whole[:at] + b"\0\0\0\0\xff\xff\xff\x7f\0\0\0\0" + whole[at + 12 :]
    assert read(tmp_path, "tables", "a.arrow", wrong) == ([], {"unreadable: corrupt arrow": 1})


# --- Known damage -----------------------------------------------------------------------------------------------------


def test_an_empty_file_has_no_documents(seed):
    folder, kind, name, _ = seed
    assert read(folder, kind, name, b"")[0] == []


@pytest.mark.parametrize("bytes_", [b"\0\0\0\0", b"\xff\xfe\xfd"], ids=["NUL", "not UTF-8"])
def test_stray_bytes_are_counted_or_replaced(seed, bytes_):
    folder, kind, name, data = seed
    middle = data.find(PROSE[:20].encode()) + 30
    if middle < 30:  # compressed
        middle = len(data) // 2
    _, skipped = read(folder, kind, name, data[:middle] + bytes_ + data[middle:])
    if bytes_.startswith(b"\0") and kind in ("text", "tables") and name.endswith((".txt", ".csv")):
        assert failures(skipped)


@pytest.mark.parametrize("kind", KINDS)
def test_an_empty_folder_and_a_folder_that_links_to_itself(tmp_path, kind):
    assert documents(kind, tmp_path) == ([], {})
    (tmp_path / "loop").symlink_to(tmp_path)
    name, data = next((name, data) for (one, name), data in SEEDS.items() if one == kind)
    found, skipped = read(tmp_path, kind, name, data)
    assert found and len({document.uri for document in found}) == len(found) and not failures(skipped)


COMPRESSED = [
    *(("text", "a.txt"), ("text", "a.jsonl"), ("web", "a.warc"), ("web", "a.warc.wet"), ("books", "a.txt")),
    *(("papers", "a.xml"), ("papers", "a.jsonl"), ("wikipedia", "a.xml"), ("tables", "a.jsonl"), ("tables", "a.csv")),
]


@pytest.mark.parametrize("kind, name", COMPRESSED)
def test_a_truncated_gzip_is_counted(tmp_path, kind, name):
    data = gzip.compress(SEEDS[kind, name])
    _, skipped = read(tmp_path, kind, f"{name}.gz", data[: len(data) * 2 // 3])
    assert failures(skipped), skipped


@pytest.fixture(scope="module")
def bombs():
    blank = b" " * 40_000_000
    return {".gz": gzip.compress(blank, 1), ".xz": lzma.compress(blank, preset=0), ".bz2": bz2.compress(blank, 1)}


@pytest.mark.parametrize("suffix", [".gz", ".xz", ".bz2"])
@pytest.mark.parametrize("kind, name", COMPRESSED)
def test_a_decompression_bomb_is_counted(tmp_path, bombs, kind, name, suffix):
    found, skipped = read(tmp_path, kind, f"{name}{suffix}", bombs[suffix])
    assert failures(skipped), skipped
    assert sum(len(document.text) for document in found) < 20_000_000


@pytest.mark.parametrize("kind", ["text", "books"])
def test_no_document_comes_from_a_decompression_bomb(tmp_path, kind):
    found, skipped = read(tmp_path, kind, "a.txt.gz", gzip.compress(b"a" * 40_000_000, 1))
    assert not found and failures(skipped) == 1


def test_a_decompression_bomb_in_a_zip_is_counted(tmp_path):
    for name in ("a.zip", "b.epub"):
        found, skipped = read(tmp_path, "books", name, zipped(**{"a.txt": b" " * 40_000_000}))
        assert not found and failures(skipped)


@pytest.mark.parametrize("kind, name", [("text", "a.jsonl"), ("tables", "a.jsonl"), ("papers", "a.jsonl")])
def test_a_record_that_is_too_long_is_skipped(tmp_path, kind, name):
    line = SEEDS[kind, name].splitlines()[0]
    long = line.replace(PROSE[:30].encode(), b"x" * 300_000)
    found, skipped = read(tmp_path, kind, name, b"\n".join([line, long, line]), max_line_bytes=100_000)
    assert len(found) == 2 and failures(skipped) == 1


@pytest.mark.parametrize("kind, name", [("text", "a.jsonl"), ("tables", "a.jsonl")])
def test_a_lone_surrogate_in_json_is_replaced(tmp_path, kind, name):
    found, skipped = read(tmp_path, kind, name, SEEDS[kind, name].replace(b"late", b"la\\ud800te"))
    assert "la\ufffd" in found[0].text and "late" not in found[0].text
    assert any(reason.startswith(KEPT) for reason in skipped)


# --- In a whole run ---------------------------------------------------------------------------------------------------


@pytest.fixture
def mixed(tmp_path):
    """A folder of intact and broken text files."""
    folder = tmp_path / "mixed"
    folder.mkdir()
    for number in range(5):
        (folder / f"{number}.txt").write_text(f"{number} {PROSE}")
    (folder / "a.txt").write_bytes(b"\0\0")
    (folder / "b.jsonl.gz").write_bytes(SEEDS["text", "a.jsonl.gz"][:-100])
    (folder / "c.parquet").write_bytes(SEEDS["text", "a.parquet"][:100])
    (folder / "d.jsonl").write_text('{"text": "bro\n')
    return folder


def test_a_run_continues_until_too_many_documents_have_failed(tmp_path, mixed):
    listing = list_sources([source(name="mixed", kind="text", path=str(mixed))], 10**8)
    (inputs,) = listing.tasks
    output = tmp_path / "output"
    output.mkdir()
    report = extract(Task(0, inputs, {"shard_bytes": 10**8, "most_document_bytes": 10**6}, tmp_path), output)
    assert report["documents"] >= 5 and failures(report["skipped"]) == 4
    assert Path(output / "documents-000.parquet").exists()
    for share in (0.5, 0.4):
        limit = FailureLimit(listing, share)
        limit.count(0, report)
        if share * (report["documents"] + 4) >= 4:
            limit.check()
        else:
            with pytest.raises(RunError, match="mixed: 4 of "):
                limit.check()
