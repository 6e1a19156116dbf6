"""What the console says about a prepared folder."""

import io

from gptjax.corpus.report.terminal import _dropped, _set_aside, changed
from gptjax.display.terminal import Console

REASONS = [
    "gopher_repetition.max_duplicate_paragraph_character_share",
    "gopher_repetition.max_duplicate_paragraph_share",
]


def source(**fields):
    return {"name": "web", "dropped": {}, "cleaned": None, **fields}


def printed(table, width=60):
    text = io.StringIO()
    Console(file=text, width=width).print(table)
    return text.getvalue()


def test_names_of_rules_are_whole_on_a_narrow_terminal():
    web = source(dropped={reason: {"documents": 1234567, "bytes": 1} for reason in REASONS})
    lines = printed(_dropped({"sources": [web]})).splitlines()
    cells = [line.split("│")[3].strip() for line in lines if line.count("│") == 4]
    assert "".join(cells) == "".join(REASONS)
    assert sum("1,234,567" in line for line in lines) == 2


def test_repaired_documents_and_masked_places_are_counted_by_kind_over_all_sources():
    first = source(cleaned={"repaired": {"line ends": 3, "mojibake": 1}, "masked": {"email": 0, "ip": 2}})
    second = source(cleaned={"repaired": {"mojibake": 4}, "masked": {"email": 0, "ip": 1}})
    assert changed({"sources": [first, second, source()]}) == [
        "documents repaired: 5 mojibake, 3 line ends",
        "places masked: 3 ip",
    ]
    assert changed({"sources": [source()]}) == []


def test_documents_at_which_a_process_ended_are_named_up_to_a_few():
    one = {"source": "web", "stage": "extract", "document": "a.warc:3", "reason": "its process ended: SIGSEGV"}
    assert _set_aside({}) == []
    assert _set_aside({"set_aside": [one]}) == ["left out: web: a.warc:3: process ended: SIGSEGV (stage extract)"]
    assert _set_aside({"set_aside": [one] * 13})[10:] == ["… and 3 other documents, which the data card names"]
