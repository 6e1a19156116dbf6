"""The report as a PDF: all sections and figures are in it, and text of data is set as text."""

import io

import pytest
from reported_runs import HOST, MARKUP

from gptjax.reporting.document import Document, Folded, Paragraph, Sample, Section
from gptjax.reporting.facts import gather
from gptjax.reporting.pdf import pdf
from gptjax.reporting.privacy import names_of_machine, without_names
from gptjax.reporting.sections import report_of

pytest.importorskip("typst")
pypdf = pytest.importorskip("pypdf")


def text_of(document):
    pages = pypdf.PdfReader(io.BytesIO(pdf(document))).pages
    return " ".join(" ".join(page.extract_text() for page in pages).split())


def test_the_pdf_has_all_sections_and_no_names_of_the_machine(run):
    document = without_names(report_of(gather(run), "made today"), names_of_machine([run]))
    text = text_of(document)
    assert all(section.title in text for section in document.nonempty)
    assert "62.5 % ± 3.1" in text and "alert(" in text and "made today" in text
    assert str(run.parent.parent) not in text and HOST not in text


def test_when_it_was_written_stands_on_the_first_page_and_not_alone_on_the_last(run):
    first, *others = pypdf.PdfReader(io.BytesIO(pdf(report_of(gather(run), "made today")))).pages
    assert "made today" in first.extract_text()
    assert others and not any("made today" in page.extract_text() for page in others)


def test_text_of_data_is_not_read_as_markup():
    odd = '#panic("x") *bold* _it_ $x^2$ <label> @ref \\ ] ) // /* ' + MARKUP
    blocks = (Paragraph(odd), Sample(odd, odd, odd), Folded("folded", (Paragraph("not printed"),)))
    text = text_of(Document(odd, odd, odd, (Paragraph(odd),), (Section("a", odd, blocks),), odd))
    assert text.count("#panic") >= 7 and text.count("*bold*") >= 7 and "not printed" not in text
