"""The report of a run that a test has trained, without what no report may have."""

import re

from gptjax.reporting.card import card
from gptjax.reporting.facts import gather
from gptjax.reporting.page import page
from gptjax.reporting.sections import report_of


def words_of_report(run):
    """(the words of the page, the model card); raises AssertionError if a section or a plot is empty."""
    facts = gather(run)
    text = page(report_of(facts, "made today"))
    sections = re.findall(r"<section.*?</section>", text, re.DOTALL)
    assert len(sections) >= 9
    for section in sections:
        after = section.partition("</h2>")[2]
        assert re.search(r"<(p|table|figure|pre|aside|div|ul)\b", after) and re.sub(r"<[^>]*>|\s", "", after), section
    for figure in re.findall(r"<svg.*?</svg>", text, re.DOTALL):
        assert "<path" in figure or "<polyline" in figure or "<circle" in figure, figure
    shown = re.sub(r"<[^>]*>", " ", re.sub(r"<(style|svg).*?</\1>", "", text, flags=re.DOTALL))
    assert not re.search(r"\b(train/|validation/|None\b|nan\b|Train [a-z])", shown)
    return " ".join(shown.split()), card(facts)
