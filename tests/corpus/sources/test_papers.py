import gzip
import io
import json
import tarfile

import pytest
from source_reading import documents, write

from gptjax.config import ConfigError

PROSE = "We study it, and find that it holds. " * 20
LATEX = "\\documentclass{article}\\title{T}\\begin{document}" + PROSE + "$x$\\end{document}"
TEXT = f"T\n\n{PROSE}$x$\n"


def tar(files, mode="w:gz"):
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode=mode) as archive:
        for name, content in files.items():
            raw = content if isinstance(content, bytes) else content.encode()
            member = tarfile.TarInfo(name)
            member.size = len(raw)
            archive.addfile(member, io.BytesIO(raw))
    return buffer.getvalue()


def test_a_folder_of_latex_files_is_a_project(tmp_path):
    parts = {
        "p/paper.tex": "\\documentclass{a}\\begin{document}\\input{authors/x}\\end{document}",
        "p/authors/x.tex": PROSE,
    }
    variants = {
        "p/paper-a4.tex": parts["p/paper.tex"].replace("{a}", "[a4]{a}"),
        "p/cover.tex": LATEX.replace(PROSE, "Hi."),
    }
    write(tmp_path, parts | variants | {"q/r/ms.tex": LATEX, "s/only.tex": "a part", "t/notes.txt": "not seen"})
    found, skipped = documents("papers", tmp_path)
    assert [(one.uri.removeprefix(f"{tmp_path}/"), one.text) for one in found] == [
        ("p/paper-a4.tex", PROSE.strip() + "\n"),
        ("q/r/ms.tex", TEXT),
    ]
    assert skipped == {
        "variants of another document of their project": 1,
        "LaTeX documents of less than 500 characters": 1,
        "LaTeX without a complete document": 1,
    }
    assert len(documents("papers", tmp_path, least_characters=1)[0]) == 3


def test_archives_of_arxiv_are_read(tmp_path):
    project = {"ms.tex": LATEX, "fig.png": b"\0", "intro.tex": "unused"}
    bulk = {"2212/2212.00001.gz": tar(project), "2212/2212.00002.gz": gzip.compress(LATEX.encode()), "2212/x.gz": b"no"}
    write(tmp_path, {"a.tar.gz": tar(project), "b.tgz": tar(project), "2301.00003.gz": gzip.compress(LATEX.encode())})
    write(
        tmp_path,
        {"c.tar": tar(project, "w"), "d.tar": tar(bulk, "w"), "2301.00004": "not seen", "notes.gz": b"not seen"},
    )
    (tmp_path / "2301.00004").unlink()
    found, skipped = documents("papers", tmp_path)
    assert {one.text for one in found} == {TEXT}
    assert [one.uri.removeprefix(f"{tmp_path}/") for one in found] == [
        "2301.00003.gz!main.tex",
        "a.tar.gz!ms.tex",
        "b.tgz!ms.tex",
        "c.tar!ms.tex",
        "d.tar!2212/2212.00001.gz!ms.tex",
        "d.tar!2212/2212.00002.gz!main.tex",
    ]
    assert skipped == {"unreadable: corrupt gzip": 1}


JATS = """<!DOCTYPE article PUBLIC "-//NLM//DTD JATS (Z39.96)//EN" "JATS-archivearticle1.dtd">
<article xmlns:xlink="http://www.w3.org/1999/xlink" xml:lang="EN"><front><article-meta>
<article-id pub-id-type="pmid">12</article-id><article-id pub-id-type="doi">10.1/x</article-id>
<title-group><article-title>On <italic>it</italic></article-title></title-group>
<contrib-group><contrib>Nobody</contrib></contrib-group>
<permissions><license xlink:href="https://creativecommons.org/licenses/by/4.0/"/></permissions>
<abstract><p>Short.</p></abstract></article-meta></front>
<body><sec><title>Intro</title><p>As known <xref ref-type="bibr">[1]</xref>, see <xref ref-type="fig">Fig. 1</xref>:
<inline-formula><alternatives><tex-math>\\begin{document}$x^2$\\end{document}</tex-math>
<mml:math xmlns:mml="m"><mml:mi>x</mml:mi></mml:math></alternatives></inline-formula>.</p>
<list><list-item><p>one</p></list-item></list>
<table-wrap><caption><p>A table.</p></caption><table><tr><td>cell</td></tr></table></table-wrap></sec></body>
<back><ref-list><ref>Somebody</ref></ref-list></back></article>"""


def test_jats_is_read(tmp_path):
    write(tmp_path, {"a.nxml": JATS})
    ((paper,), skipped) = documents("papers", tmp_path)
    assert paper.text == ("On it\n\nAbstract\n\nShort.\n\nIntro\n\nAs known, see Fig. 1: $x^2$.\n\n- one\n\nA table.\n")
    assert (paper.uri, paper.license, paper.language) == ("doi:10.1/x", "CC-BY-4.0", "en") and not skipped


BIBR = '<xref ref-type="bibr" rid="r">{}</xref>'


@pytest.mark.parametrize(
    "sentence, text",
    [
        (f"It is known [{BIBR.format(1)}, {BIBR.format(2)}].", "It is known."),
        (f"It is known ({BIBR.format('Li, 2010')}; {BIBR.format('Wu, 2011')}).", "It is known."),
        (f"It is known [{BIBR.format(1)}–{BIBR.format(3)}] and old (see {BIBR.format('Li, 2010')}).",
         "It is known and old."),
        (f"It is known<sup>{BIBR.format(1)},{BIBR.format(2)}</sup>, too.", "It is known, too."),
        (f"{BIBR.format('Li et al. (2010)')} show it, as in [{BIBR.format(3)}].",
         "Li et al. (2010) show it, as in [3]."),
        (f"Call f() ({BIBR.format('Li, 2010')}) or a[].", "Call f() or a[]."),
        ("Run <code>x  = 1</code>:<preformat>if x:\n    y [, ]\n</preformat>", "Run x  = 1:\n\nif x:\n    y [, ]"),
    ],
)  # fmt: skip
def test_references_in_jats_leave_no_holes(tmp_path, sentence, text):
    write(tmp_path, {"a.xml": f"<article><body><sec><p>{sentence}</p></sec></body></article>"})
    assert [paper.text for paper in documents("papers", tmp_path)[0]] == [text + "\n"]


def test_the_acl_anthology_is_read(tmp_path):
    text = (
        '<collection id="2022.acl"><volume id="long"><paper id="1"><title><fixed-case>A</fixed-case>dap: it</title>'
        "<abstract>We <tex-math>x</tex-math>\n do.</abstract><url>2022.acl-long.1</url></paper>"
        "<paper id='2'><title>No abstract</title></paper></volume></collection>"
    )
    write(tmp_path, {"2022.acl.xml": text})
    ((paper,), _) = documents("papers", tmp_path)
    assert (paper.uri, paper.text) == ("https://aclanthology.org/2022.acl-long.1", "Adap: it\n\nWe $x$ do.\n")


def test_unarxive_is_read(tmp_path):
    key = "61dfc976-7f58-49bc-bc57-8612b6edd0ec"
    record = {
        "paper_id": "2212.1",
        "metadata": {"title": "On\n  it", "license": "http://creativecommons.org/licenses/by/4.0/", "abstract": "x"},
        "abstract": {"text": "  Short\nabstract.\n"},
        "body_text": [
            {
                "section": "Intro",
                "text": f"Let {{{{formula:{key}}}}}  be known {{{{cite:{key}}}}}, {{{{cite:{key}}}}} .",
            },
            {"section": "Intro", "text": "More ({{cite:" + key + "}})."},
            {"section": "End", "text": "Fine \ud800"},
        ],
        "ref_entries": {key: {"latex": "x ^2", "type": "formula"}},
        "bib_entries": {},
    }
    write(tmp_path, {"a.jsonl": json.dumps(record) + '\n{"paper_id": 1}\n[]\n'})
    ((paper,), skipped) = documents("papers", tmp_path)
    assert (
        paper.text
        == "On it\n\nAbstract\n\nShort abstract.\n\nIntro\n\nLet $x ^2$ be known.\n\nMore.\n\nEnd\n\nFine ?\n"
    )
    assert (paper.uri, paper.license) == ("arXiv:2212.1", "CC-BY-4.0")
    assert skipped == {"unreadable: not a record of unarXive": 2}


def pdf(lines, encrypt=None):
    """A PDF of one page with these lines."""
    pypdf = pytest.importorskip("pypdf")
    from pypdf.generic import DecodedStreamObject, DictionaryObject, NameObject

    writer = pypdf.PdfWriter()
    page = writer.add_blank_page(600, 800)
    font = {"/Type": "/Font", "/Subtype": "/Type1", "/BaseFont": "/Helvetica"}
    font = DictionaryObject({NameObject(key): NameObject(value) for key, value in font.items()})
    page[NameObject("/Resources")] = DictionaryObject({NameObject("/Font"): DictionaryObject({NameObject("/F"): font})})
    content = DecodedStreamObject()
    shown = "".join(f"({line}) Tj 0 -14 Td\n" for line in lines)
    content.set_data(f"BT /F 12 Tf 50 700 Td\n{shown}ET".encode())
    page[NameObject("/Contents")] = writer._add_object(content)
    if encrypt:
        writer.encrypt(encrypt, algorithm="RC4-128")
    buffer = io.BytesIO()
    writer.write(buffer)
    return buffer.getvalue()


def tar_of(files):
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
        for name, content in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))
    return buffer.getvalue()


def test_what_an_operating_system_leaves_in_archives_is_not_read_and_figures_are_no_papers(tmp_path):
    figure = pdf(["Figure 1 " * 20] * 20)
    debris = {"._main.tex": b"\0\5\26\7" + LATEX.encode(), ".DS_Store": b"\0", "__MACOSX/._a.tex": LATEX.encode()}
    write(tmp_path, {"2101.00001.tar.gz": tar_of({"fig/a.pdf": figure, **debris, "main.tex": LATEX.encode()})})
    found, skipped = documents("papers", tmp_path)
    assert len(found) == 1 and PROSE.strip() in found[0].text
    assert skipped == {"PDF beside LaTeX: figures, or the same paper": 1}
    assert (
        len(documents("papers", write(tmp_path / "p", {"b.tar.gz": tar_of({"a.pdf": figure, "b.pdf": figure})}))[0])
        == 2
    )


def test_pdfs_in_the_folder_of_a_latex_project_are_its_figures(tmp_path):
    figure = pdf(["Figure 1 " * 20] * 20)
    write(tmp_path, {"x/main.tex": LATEX.encode(), "x/fig/a.pdf": figure, "y/paper.pdf": figure, "x/._main.tex": b"\0"})
    found, skipped = documents("papers", tmp_path)
    assert sorted(one.uri.removeprefix(f"{tmp_path}/") for one in found) == ["x/main.tex", "y/paper.pdf"]
    assert skipped == {"PDF beside LaTeX: figures, or the same paper": 1}


def test_pdf_is_read(tmp_path):
    lines = ["This is a line of text that goes", "on in the next one, and is at", "its end."]
    write(tmp_path, {"a.pdf": pdf(lines), "b.pdf": pdf(lines, "secret"), "c.pdf": b"%PDF-1.4 broken", "d.pdf": pdf([])})
    ((paper,), skipped) = documents("papers", tmp_path)
    assert paper.text == " ".join(lines) + "\n"
    assert skipped == {
        "unreadable: encrypted PDF": 1,
        "unreadable: corrupt PDF": 1,
        "PDF without text: pictures of pages": 1,
    }
    assert not documents("papers", tmp_path / "a.pdf", max_pages=0)[0]
    write(tmp_path, {"long.pdf": pdf(lines * 5000)})
    found, skipped = documents("papers", tmp_path / "long.pdf", max_pdf_seconds=0.01)
    assert not found and skipped == {"unreadable: PDF of more than 0.01 seconds": 1}


def test_bad_files_are_counted(tmp_path):
    whole = tar({"ms.tex": LATEX * 50})
    write(
        tmp_path,
        {
            "a.tar.gz": whole[: len(whole) // 2],
            "b.tar.gz": b"not gzip",
            "c.xml": "<article><body>",
            "d.xml": '<!DOCTYPE a [<!ENTITY x "y">]><article>&x;</article>',
            "e.xml": "<other/>",
            "f.tar.gz": tar({"../../escape.tex": LATEX, "/abs.tex": "x"}),
            "g/ms.tex": LATEX.replace("We", "\0"),
            "h.tar": tar({"x.tex": "x" * 2_000_000}, "w"),
        },
    )
    found, skipped = documents("papers", tmp_path, max_project_bytes=1_000_000)
    assert [one.text for one in found] == [TEXT], "a member's name that leaves the archive is only a name"
    assert skipped["unreadable: NUL bytes: not a text"] == 1 and skipped["XML without a paper"] == 1
    assert skipped["unreadable: broken XML: declares entities"] == skipped["unreadable: broken XML: truncated"] == 1
    assert skipped["unreadable: LaTeX project of more than 1,000,000 bytes"] == 1
    assert sum(skipped.values()) == 7


def test_a_missing_folder_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="no such file or folder"):
        documents("papers", tmp_path / "nowhere")
