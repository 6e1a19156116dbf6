"""The report as a page: it has what the run records, is one file without scripts, and says nothing of the machine."""

import html.parser
import json
import re
import shutil

import pytest
from ml_collections import ConfigDict
from reported_runs import HOST, MARKUP, STEPS

from gptjax.config import hash_of
from gptjax.reporting.document import Code, Document, Figure, Folded, Note, Paragraph, Sample, Section, Table, Tiles
from gptjax.reporting.effort import Prices
from gptjax.reporting.facts import gather, gather_all
from gptjax.reporting.markdown import blocks_text
from gptjax.reporting.page import page
from gptjax.reporting.pdf import can_write_pdf, pdf
from gptjax.reporting.privacy import names_of_machine, without_names
from gptjax.reporting.sections import report_of
from gptjax.reporting.settings import config_source
from gptjax.settings import freeze


class Read(html.parser.HTMLParser):
    """The elements of a page, its text, and what it links to."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.ids, self.links, self.loads, self.text = [], [], [], [], ""
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        for name, value in attrs:
            self.ids += [value] * (name == "id")
            self.links += [value] * (name in ("href", "xlink:href"))
            self.loads += [(tag, name, value)] * (name in ("src", "srcset", "data", "action", "poster", "background"))
            self.loads += [(tag, name, value)] * name.startswith("on")

    def handle_data(self, data):
        self.text += data


def written(folder, **options):
    document = report_of(gather(folder), "made today", **options)
    return page(without_names(document, names_of_machine([folder])))


@pytest.fixture(scope="module")
def text(run):
    return written(run)


def test_the_page_is_one_file_whose_links_stay_in_it(text):
    read = Read(text)
    assert read.links and all(link.startswith("#") and link[1:] in read.ids for link in read.links)
    assert len(set(read.ids)) == len(read.ids)
    assert not read.loads and not {"script", "link", "img", "iframe", "object", "form", "base"} & set(read.tags)
    assert "url(" not in text and "@import" not in text and "default-src 'none'" in text
    assert "http" not in re.sub(r"http-equiv|http://www\.w3\.org/2000/svg", "", text)


def test_the_page_shows_what_the_run_records(text):
    shown = " ".join(Read(text).text.split())
    assert "3.0000" in shown, "the best validation loss"
    assert "62.5 % ± 3.1" in shown and "3 of 200 items" in shown, "a score, and contamination"
    assert "2 × NVIDIA H100 80GB HBM3" in shown and "25.0 %" in shown, "devices, and their utilization"
    assert "2:30" in shown, "100 s until the resume and 50 s after it"
    assert "a spike of the loss, 9.5 standard deviations" in shown and "1 update dropped" in shown
    assert "resumed with changed settings (optimizer.learning_rate: 0.002 → 0.001" in shown
    assert "Step 40: resumed" in shown and "step 30" in shown, "history, and the sample of training"
    assert text.count("<svg") >= 5


def test_folders_and_hosts_of_the_machine_are_not_on_the_page(run, text):
    for secret in (str(run.parent.parent), run.parent.parent.name, HOST, "node17", "/mnt/secret", "inhouse7"):
        assert secret not in text
    assert "books" in text and "/usr/bin/env" in text, "names of folders, and paths that a model wrote, stay"


def test_what_the_author_and_the_data_say_stays_text(run):
    document = report_of(
        gather(run, name=MARKUP), "made", about=MARKUP, samples=[Sample(MARKUP, MARKUP, MARKUP)], rule=MARKUP
    )
    read = Read(page(document))
    assert "script" not in read.tags and read.text.count(MARKUP) >= 7


def test_every_kind_of_block_escapes_its_strings():
    text = f"`{MARKUP}` & {MARKUP}"
    rows = ((text, text, text),)
    blocks = (
        Paragraph(text),
        Note(text),
        Tiles(rows),
        Table((text,) * 3, rows, frozenset({1}), text),
        Figure("", text, text),
    )
    document = Document(text, text, text, blocks, (Section("a", text, (Folded(text, blocks),)),), text)
    read = Read(page(document))
    assert "script" not in read.tags and MARKUP in read.text


def test_half_characters_and_control_characters_can_be_written():
    odd = "\ud800 \x00 \x1b[31m 漢字 😀"
    document = Document(odd, odd, odd, (Paragraph(odd), Code(odd)), (), odd)
    assert "� ␀ ␛[31m 漢字 😀" in page(document).encode().decode() and "�" in blocks_text(document.lead)
    assert can_write_pdf() is False or pdf(document).startswith(b"%PDF")


@pytest.fixture
def copy(run, tmp_path):
    shutil.copytree(run, tmp_path / "copy")
    return tmp_path / "copy"


def test_without_a_checkpoint_and_an_evaluation_the_page_says_so(copy):
    shutil.rmtree(copy / "checkpoints")
    shutil.rmtree(copy / "evaluation")
    shutil.rmtree(copy / "samples")
    shown = " ".join(Read(written(copy)).text.split())
    assert "The run has no checkpoint yet, so there is no model to describe" in shown
    assert "has not been evaluated on any task" in shown and "There are no samples" in shown
    assert "There is no checkpoint to load yet" in shown


def test_damaged_files_are_said_to_be_damaged(copy):
    (copy / "history.jsonl").write_text('{"step": 0, "changes": 5, "hardware": "x"}\n{"step"')
    (results,) = copy.glob("evaluation/*/results.json")
    results.write_text('{"evaluated": {')
    (copy / "metrics.jsonl").write_text('{"step": 1, "train/loss": "NaN", "elapsed_seconds": "x"}\n{"st')
    for file in copy.glob("checkpoints/*/_CHECKPOINT_METADATA"):
        file.write_text("{")
    (copy / "tokenizer.json").write_text("")
    shown = " ".join(Read(written(copy)).text.split())
    assert f"The results in evaluation/step-{STEPS:08d} are damaged" in shown
    assert "None of the run's checkpoints can be read" in shown and "no tokenizer that can be read" in shown
    assert "not recorded" in shown and "nothing to draw" in shown


def test_results_of_another_version_are_left_out(copy):
    (results,) = copy.glob("evaluation/*/results.json")
    saved = json.loads(results.read_text())
    saved["tasks"]["quiz"] = {"scores": {"accuracy": 1}}
    results.write_text(json.dumps(saved))
    assert "are of another version and were left out" in Read(written(copy)).text


def test_a_run_without_metrics_has_a_page(copy):
    (copy / "metrics.jsonl").unlink()
    (copy / "history.jsonl").unlink()
    shown = Read(written(copy)).text
    assert "no metrics.jsonl" in shown and "no record of its starts" in shown


def test_deleted_data_are_said_to_be_gone_with_what_a_checkpoint_recorded(run, copy):
    config = json.loads((copy / "config.json").read_text())
    data = config["data"]["path"]
    config["data"]["path"] = "/mnt/gone/books"
    (copy / "config.json").write_text(json.dumps(config))
    shown = " ".join(Read(written(copy)).text.split())
    assert "The prepared folder books is not here any more" in shown and "train-00000.bin" in shown
    assert data not in shown and "/mnt/gone" not in shown


def test_data_that_changed_since_are_said_to_have_changed(run, copy, tmp_path):
    config = json.loads((copy / "config.json").read_text())
    shutil.copytree(config["data"]["path"], tmp_path / "books")
    manifest = json.loads((tmp_path / "books" / "manifest.json").read_text())
    from gptjax.corpus.manifest import write_manifest

    manifest["splits"]["train"]["shards"][0]["hash"] = "0" * 16
    del manifest["hash"]
    write_manifest(tmp_path / "books", manifest)
    config["data"]["path"] = str(tmp_path / "books")
    (copy / "config.json").write_text(json.dumps(config))
    assert "has changed since the run was trained" in Read(written(copy)).text
    assert "has changed since" not in Read(written(run)).text


def test_the_config_that_reproduces_the_run_is_the_runs_config(run):
    facts, names = gather(run), {}
    exec(config_source(facts.config), names)
    made = names["get_config"]()
    assert isinstance(made, ConfigDict) and hash_of(freeze(made)) == facts.config_hash


def test_energy_and_cost_are_estimates_from_the_measured_time(run):
    from gptjax.forecast.price import parse_price

    (facts,) = gather_all([run], Prices(parse_price("3 USD", "--price"), None, 100.0))
    effort = facts.effort
    assert effort.seconds == pytest.approx(150) and effort.training_seconds == pytest.approx(120)
    assert effort.kilowatt_hours == pytest.approx(700 * 2 * 150 / 3.6e6), "two H100, 700 W each"
    assert effort.carbon_grams == pytest.approx(100 * effort.kilowatt_hours)
    assert effort.cost == "0.25 USD" and effort.mfu == pytest.approx(0.25)
    shown = " ".join(Read(page(report_of(facts, ""))).text.split())
    assert "estimate: 700 W (the maximum of NVIDIA H100 80GB HBM3 according to its maker)" in shown
    assert "estimate: 3 USD per device and hour" in shown and "not estimated" not in shown
