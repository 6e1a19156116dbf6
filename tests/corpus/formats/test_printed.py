"""Sentences of papers beside what their print shows, in the files of `printed`.

The constructs are those of about 40 sentences each of a book on type theory (latex_mathematics), of papers on software
(latex_software), of papers on language (latex_language, latex_numbered), and of journals in JATS (jats_journals): half
of them the sentences with the rarest commands, half drawn by a seed. Those of latex_counters, latex_algorithms and the
last of JATS were wrong beside the PDFs of real papers. The words are this project's own. All 132 sentences of LaTeX and
49 of JATS were printed and compared with their pages by eye; experiments/corpus/printed.py does it again; its README
says what the readers leave out or write differently by design. A record is a source, then the print after "=>"; after
"=>|" lines and spaces count.
"""

from pathlib import Path

import pytest

from gptjax.corpus.formats import scholarly
from gptjax.corpus.formats.latex import to_text
from gptjax.corpus.formats.latex_project import with_macros_expanded, without_comments
from gptjax.corpus.formats.xml import parse

FOLDER = Path(__file__).parent / "printed"
BEGIN = "Here begins the sentence."


def records(kind):
    for file in sorted(FOLDER.glob(f"{kind}_*.txt")):
        context, *sentences = file.read_text(encoding="utf-8").split("\n--\n")
        for number, sentence in enumerate(sentences, 1):
            source, exact, print_ = sentence.partition("\n=>| ")
            if not exact:
                source, _, print_ = sentence.partition("\n=> ")
            yield pytest.param(context, source, print_.strip("\n"), bool(exact), id=f"{file.stem}-{number}")


@pytest.mark.parametrize("context, source, printed, exact", [*records("latex")])
def test_a_sentence_of_latex_is_as_it_is_printed(context, source, printed, exact):
    document = f"{context}\n{BEGIN}\n\n{source}\n\n\\end{{document}}"
    text = to_text(with_macros_expanded(without_comments(document))).partition(BEGIN)[2].strip()
    assert text == printed if exact else text.split() == printed.split()


@pytest.mark.parametrize("context, source, printed, exact", [*records("jats")])
def test_a_sentence_of_jats_is_as_it_is_printed(context, source, printed, exact):
    article = f"<article {context.strip()}><body><sec>{source}</sec></body></article>"
    (paper,) = scholarly.papers(parse(article.encode()))
    assert paper.text == printed if exact else paper.text.split() == printed.split()
