import pytest

from gptjax.corpus.formats.gutenberg import without_boilerplate
from gptjax.corpus.formats.wrapping import unwrapped

BOOK = "The Title\n\nby Somebody\n\n\nChapter 1\n\n" + "It was produced by hand, and read by many.\n" * 40
LICENSE = "Section 1. General Terms of Use and Redistributing Project Gutenberg-tm electronic works\n" * 30

HEADERS = {
    "2003": (
        "The Project Gutenberg EBook of It\n\nTitle: It\n\n*** START OF THIS PROJECT GUTENBERG EBOOK IT ***\n\n"
        "Produced by Some Body and the\nOnline Distributed Proofreading Team\n\n\n"
    ),
    "two lines": (
        "Title: It\n\n***START OF THE PROJECT GUTENBERG EBOOK IT, OR\nTHE OTHER***\n\nE-text prepared by X\n\n"
    ),
    "small print": (
        "**The Project Gutenberg Etext of It**\n\n***START**THE SMALL PRINT!**FOR PUBLIC DOMAIN ETEXTS**START***\n"
        "Why is this here?\n*END*THE SMALL PRINT! FOR PUBLIC DOMAIN ETEXTS*Ver.04.29.93*END*\n\n\n"
    ),
    "small print of 2001": (
        "Etext of It\n\n**END THE SMALL PRINT! FOR PUBLIC DOMAIN ETEXTS*Ver.04.08.01*END**\n[Portions of this header "
        "are copyright]\n\n[Chapters 1-6: mostly scanned by A, proofread by B.\nScanned by C]\n\n"
    ),
    "a star in the title": "Title: It*\n\n*** START OF THE PROJECT GUTENBERG EBOOK IT*, A *NEW* BOOK ***\n\n",
    "copyrighted": "Title: It\n\n*** START OF THE COPYRIGHTED PROJECT GUTENBERG EBOOK IT ***\n\n",
    "notes": (
        "Title: It\n\n*** START OF THE PROJECT GUTENBERG EBOOK IT ***\n\n"
        "Note: Project Gutenberg also has an HTML version "
        "of this\n      file which includes the original illustrations.\n      See 12345-h.htm\n\n"
        "Transcriber's Notes:\n\nProduced by Some Body\n\n"
    ),
    "none": "",
}
FOOTERS = {
    "2003": "\n\nEnd of the Project Gutenberg EBook of It, by\n\n*** END OF THIS PROJECT GUTENBERG EBOOK IT ***\n\n"
    + LICENSE,
    "new": "\n\n*** END OF THE PROJECT GUTENBERG EBOOK IT ***\n" + LICENSE,
    "copyrighted": "\n\n*** END OF THE COPYRIGHTED PROJECT GUTENBERG EBOOK IT ***\n" + LICENSE,
    "transcriber": "\n\n\n      *       *       *       *\n\nTranscriber's Notes\n\nPage 5: fixed.\n\n"
    "*** END OF THE PROJECT GUTENBERG EBOOK IT ***\n" + LICENSE,
    "etext": "\n\nEnd of the Project Gutenberg Etext of It\n",
    "'s": "\n\nEnd of Project Gutenberg's It, by Somebody\n",
    "small print": "\n\n***START**THE SMALL PRINT!**FOR PUBLIC DOMAIN ETEXTS**START***\nWhy is this here?\n",
    "none": "",
}


@pytest.mark.parametrize("header", HEADERS)
@pytest.mark.parametrize("footer", FOOTERS)
def test_only_the_book_is_left(header, footer):
    text = HEADERS[header] + BOOK + FOOTERS[footer]
    assert without_boilerplate(text).strip() == BOOK.strip()


def test_words_about_the_project_within_the_book_stay():
    text = BOOK + "\nEnd of Project Gutenberg is what he feared.\n" + BOOK * 3
    assert without_boilerplate(text) == text


def test_lines_broken_to_a_width_become_paragraphs():
    wrapped = (
        "It was a dark and stormy night; the rain fell in torrents, except at\n"
        "occasional intervals, when it was checked by a violent gust of wind,\n"
        "which swept up the streets, rattling along the house-\n"
        "tops, and fiercely agitating the scanty flame of the lamps that strug-\n"
        "gled.\n\n"
        "    A centred line\n\n"
        "Roses are red,\n"
        "Violets are blue,\n"
    )
    told = unwrapped(wrapped)
    assert "at occasional intervals, when" in told and "wind, which" in told
    assert told.endswith("    A centred line\n\nRoses are red,\nViolets are blue,\n")
    assert "lamps that strug-gled." in told  # a hyphen may belong to the word


def test_text_without_wrapped_lines_is_not_changed():
    for text in ("", "one\n\ntwo\n", "word " * 500 + "\n\n" + "word " * 400):
        assert unwrapped(text).split() == text.split() and unwrapped(text).count("\n") == text.count("\n")


def test_words_that_were_broken_at_the_end_of_a_line_are_joined_and_compounds_keep_their_hyphen():
    filling = "some words that fill a line up to its width here\n" * 8
    for first, second, joined in (
        ("the learned repre-", "sentations are", "representations"),
        ("it is a well-", "known one; well-known", "well-known"),
        ("he stopped there--", "it rained", "there--it"),
        ("the Jean-", "Paul of it", "Jean-Paul"),
        ("a state-", "of the art; state-of", "state-of"),
    ):
        line = first.rjust(47).replace(" ", "x", 47 - len(first) - 1)
        assert joined in unwrapped(
            f"{filling}{line}\n{second} and so on to the end of it all\n{filling}", hyphenated=True
        )
