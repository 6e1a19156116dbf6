import io
import json
from collections import Counter

import pytest
from rich.console import Console

from gptjax.config import ConfigError
from gptjax.corpus.config import default, source
from gptjax.corpus.preview import PIECES, _some, preview
from gptjax.corpus.report.preview_tables import show
from gptjax.corpus.sources.listing import list_sources

GOOD = "The committee met on Tuesday to discuss what should be done about bridge number {0} of that old road. " * 4


def write(folder, texts, records=10):
    folder.mkdir(parents=True)
    for start in range(0, len(texts), records):
        lines = [json.dumps({"text": each}) + "\n" for each in texts[start : start + records]]
        (folder / f"{start:05d}.jsonl").write_text("".join(lines))


@pytest.fixture
def config(tmp_path):
    """web: 400 pages, every fifth too short, every tenth a copy; notes: one file, without rules."""
    web = [GOOD.format(number) + f"{number} jane@web.de" for number in range(400)]
    web[::5] = [f"short page {number}" for number in range(80)]
    web[1::10] = [GOOD.format("the same")] * 40
    write(tmp_path / "web", web)
    (tmp_path / "web" / "zz.jsonl").write_text("{broken\n" * 5)
    write(tmp_path / "notes", ["Eine Notiz über die alte Brücke, die wir am Dienstag besuchten."] * 50, records=50)
    made = default()
    made.sources = (
        source(name="web", kind="text", path=f"{tmp_path}/web", recipe="text"),
        source(name="notes", kind="text", path=f"{tmp_path}/notes"),
    )
    made.cleaning.personal = ("email",)
    made.cleaning.recipes.text = ("gopher_quality.min_words",)
    return made


def looked_at(config, count):
    return preview(config, list_sources(config.sources, 10_000), count)


def test_a_sample_has_equal_numbers_of_documents_per_source_from_many_pieces(config):
    web, notes = looked_at(config, 100)
    assert web.cleaned["documents"] == 50 and notes.cleaned["documents"] == 50
    assert web.cleaned["masked"]["email"] > 20 and notes.cleaned["languages"].keys() == {"de"}
    reasons = web.selected["reasons"]
    assert reasons.keys() == {"gopher_quality.min_words"} and 5 <= reasons["gopher_quality.min_words"][0] <= 20
    assert notes.copies == 49 and web.copies >= 1 and not notes.selected["reasons"]
    assert looked_at(config, 100) == [web, notes], "the same documents each time"


def test_pieces_are_drawn_at_random(config):
    listing, skipped = list_sources(config.sources, 10_000), Counter()
    places = [document.uri for document in _some(listing, config.sources[0], 50, config.seed, skipped)]
    per_file = Counter(uri.split("/")[-1].split(".")[0] for uri in places)
    assert max(per_file.values()) == -(-50 // PIECES) and max(map(int, per_file)) > 100


def test_a_sample_larger_than_the_data_has_all_documents(config):
    web, notes = looked_at(config, 10_000)
    assert web.cleaned["documents"] == 400 and notes.cleaned["documents"] == 50
    assert web.skipped == {"unreadable: broken JSON line": 5} and web.copies == 39
    assert web.selected["reasons"]["gopher_quality.min_words"] == [80, 80]


def test_a_sample_without_documents_is_refused(config, tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / "a.txt").write_text("")
    config.sources = (source(name="web", kind="text", path=f"{tmp_path}/empty"),)
    with pytest.raises(ConfigError, match="--sample: no document could be read"):
        looked_at(config, 10)


def test_the_tables_show_rules_shares_examples_and_languages(config):
    console = Console(file=io.StringIO(), width=100)
    show(console, config.cleaning, looked_at(config, 10_000))
    told = console.file.getvalue()
    assert "gopher_quality.min_words" in told and "20.0%" in told and "short page" in told and "80.0%" in told
    for words in (
        "masked: 280 email",
        "unreadable: broken JSON",
        "The committee",
        " de ",
        " en ",
        "nothing was written",
    ):
        assert words in told, words
