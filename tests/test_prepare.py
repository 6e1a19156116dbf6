"""The prepare command, tested by its output and files."""

import importlib.metadata
import json
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from commands import run_command, typed_command

from gptjax.config import default
from gptjax.corpus.manifest import write_manifest
from gptjax.data import open_dataset
from gptjax.display.formatting import size_text
from gptjax.tokenizer import load


def prepare(*flags, check=True, cwd=None):
    """cwd: runs the command there in a new process; otherwise it is forked from a process that has imported
    everything."""
    if cwd is None:
        done = run_command("prepare", *flags, COLUMNS="200")
    else:
        command = [sys.executable, "-m", "gptjax.prepare", *flags]
        done = subprocess.run(command, capture_output=True, text=True, cwd=cwd, env=os.environ | {"COLUMNS": "200"})
    if check:
        assert done.returncode == 0, done.stderr
    return done


def refused(*flags):
    """The one line with which a user error ends."""
    done = prepare(*flags, check=False)
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert line.startswith("error: ")
    return line


def test_conversations_have_the_tokenizer_of_a_run_and_the_tokens_of_their_template(tmp_path):
    rows = [{"instruction": f"Add 1 to {n}.", "output": str(n + 1)} for n in range(40)] + [{"instruction": "Why?"}]
    (tmp_path / "rows.json").write_text(json.dumps(rows))
    flags = (f"--conversations={tmp_path / 'rows.json'}", "--tokenizer=byte")
    done = prepare(*flags, f"--output={tmp_path / 'byte'}", "--template=turns")
    assert f"instruction and output ({tmp_path}/rows.json:41)" in done.stdout
    assert "template turns; tokens that the assistant wrote: train" in done.stdout
    assert "--config=configs/instructions.py --" in done.stdout and "gptjax.chat --workdir=" in done.stdout
    (tmp_path / "base" / "checkpoints").mkdir(parents=True)
    load(tmp_path / "byte").save(tmp_path / "base")
    done = prepare(flags[0], f"--tokenizer={tmp_path / 'base'}", f"--output={tmp_path / 'more'}")
    assert f"--config=configs/instructions.py:{tmp_path / 'base'} --" in done.stdout
    assert load(tmp_path / "more").vocab_size == load(tmp_path / "base").vocab_size + 2
    assert "--template is only for --conversations" in refused(f"--input={tmp_path}", "--template=turns")
    assert "--template='chatm': expected one of" in refused(*flags, "--template=chatm", f"--output={tmp_path / 'no'}")


def test_a_sample_shows_what_would_be_dropped_and_writes_nothing(corpus, tmp_path):
    (tmp_path / "config.py").write_text(
        "from gptjax.corpus.config import default, source\n"
        "def get_config():\n"
        "    config = default()\n"
        f"    config.sources = (source(name='mine', kind='text', path={str(corpus)!r}, recipe='text'),)\n"
        "    return config\n"
    )
    before = sorted(tmp_path.rglob("*"))
    done = prepare(
        f"--config={tmp_path / 'config.py'}", "--sample=20", "--config.cleaning.gopher_quality.min_words=100"
    )
    assert "gopher_quality.min_words" in done.stdout and "100" in done.stdout and "nothing was written" in done.stdout
    assert (
        sorted(path for path in tmp_path.rglob("*") if path.suffix != ".pyc" and path.name != "__pycache__") == before
    )
    assert "--sample is only for --config" in refused(f"--input={corpus}", "--sample=20")


@pytest.fixture
def corpus(tmp_path):
    folder = tmp_path / "corpus"
    folder.mkdir()
    words = np.random.default_rng(0).choice(["alpha", "beta", "gamma", "delta", "return", "self"], (60, 80))
    lines = [json.dumps({"text": " ".join(row)}) for row in words]
    (folder / "a.jsonl").write_text("\n".join([*lines, "{broken"]))
    (folder / "b.txt").write_bytes("un café très fort, s’il vous plaît; ça va ? ".encode("cp1252") * 9)
    (folder / "c.txt").write_text("")
    return folder


def test_text_becomes_batches(corpus, tmp_path):
    output = tmp_path / "out"
    flags = [f"--input={corpus}", f"--output={output}", "--vocab_size=320", "--validation_fraction=0.2"]
    done = prepare(*flags)
    for said in (
        "skipped 1: unreadable: broken JSON line",
        "skipped 1: empty or blank",
        "kept 1: read as cp1252, judging by its bytes",
    ):
        assert said in done.stdout

    manifest = json.loads((output / "manifest.json").read_text())
    assert manifest["splits"]["train"]["documents"] + manifest["splits"]["validation"]["documents"] == 61
    config = default().data
    config.update(path=str(output), sequence_length=32)
    batch = open_dataset(config, "train", seed=0, batch_size=2).batch(0, np.arange(2))
    assert set("alpha beta gamma") & set(load(output).decode(batch["tokens"][0]))

    before = {path: path.stat().st_mtime_ns for path in output.iterdir()}
    assert "already prepared" in prepare(*flags).stdout
    assert {path: path.stat().st_mtime_ns for path in output.iterdir()} == before
    for stage in ("tokenizer", "encode"):
        manifest["stages"][stage]["libraries"]["sentencepiece"] = "0.0.1"  # an older version
    write_manifest(output, manifest)
    made = f"made with sentencepiece 0.0.1 (here {importlib.metadata.version('sentencepiece')}); --overwrite"
    assert made in prepare(*flags).stdout
    _, different = prepare(*flags, "--vocab_size=330", check=False).stderr.splitlines()
    assert different == "  --vocab_size: was 320, is now 330"
    (corpus / "d.txt").write_text("more")
    said, *different = prepare(*flags, check=False).stderr.splitlines()
    assert "choose another folder, or give --overwrite" in said and "  input_files: was 3, is now 4" in different
    assert "already" not in prepare(*flags, "--overwrite").stdout
    assert json.loads((output / "manifest.json").read_text())["splits"]["train"]["documents"] > 0

    # Another corpus with the same tokens.
    other = tmp_path / "other"
    prepare(f"--input={corpus}", f"--output={other}", f"--tokenizer={output}", "--validation_fraction=0.2")
    assert load(other).hash == load(output).hash


@pytest.mark.slow
def test_the_printed_next_command_works(tmp_path):
    (tmp_path / "my text.txt").write_text("It was a dark and stormy night; the rain's torrents fell.\n")
    said = prepare("--input=my text.txt", "--output=data/my text", cwd=tmp_path).stdout
    assert "held out for validation: the last" in said and "of the document" in said
    smaller = " --config.model.num_layers=1 --config.model.width=32 --config.training.duration='20 steps'"
    for before, more in {"next: ": smaller, "then: ": ""}.items():
        (line,) = [line for line in said.splitlines() if line.startswith(before)]
        done = subprocess.run(
            ["sh", "-c", line.removeprefix(before) + more],
            cwd=tmp_path,
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stderr
    assert (tmp_path / "runs" / "my text" / "metrics.jsonl").exists() and done.stdout.startswith("It was a")
    assert "--workdir='runs/my text-2'" in prepare("--input=my text.txt", "--output=data/my text", cwd=tmp_path).stdout


def test_the_same_command_makes_the_same_bytes(corpus, tmp_path):
    for name in ("one", "two"):
        prepare(f"--input={corpus}", f"--output={tmp_path / name}", "--vocab_size=320", "--validation_fraction=0.2")
    for path in (tmp_path / "one").iterdir():
        assert path.is_dir() or path.read_bytes() == (tmp_path / "two" / path.name).read_bytes()


CONFIG = """
from gptjax.corpus.config import default, source


def get_config():
    config = default()
    config.sources = (
        source(name="one", kind="text", path={one!r}, weight=1.5),
        source(name="two", kind="text", path={two!r}),
    )
    config.shard_megabytes = 1
    config.tokenizer.vocab_size = 340
    return config
"""


def tree(folder):
    """Every file of a prepared folder and of its stages."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and path.name != ".lock"
    }


def test_after_an_interruption_at_any_stage_the_same_command_gives_the_same_bytes(tmp_path):
    """A kill, SIGTERM, a closed terminal and Ctrl-C end the command; closed output does not."""
    words = np.random.default_rng(0).choice(["alpha", "beta", "gamma", "delta", "return", "self"], (600, 1000))
    texts = [" ".join(row) + f" {i}" for i, row in enumerate(words)]
    for name, part in {"one": texts[:400], "two": texts[300:]}.items():
        (tmp_path / name).mkdir()
        for start in range(0, len(part), 50):
            lines = [json.dumps({"text": text}) + "\n" for text in part[start : start + 50]]
            (tmp_path / name / f"{start:03d}.jsonl").write_text("".join(lines))
    (tmp_path / "config.py").write_text(CONFIG.format(one=str(tmp_path / "one"), two=str(tmp_path / "two")))
    command = [sys.executable, "-m", "gptjax.prepare", f"--config={tmp_path / 'config.py'}"]
    prepare(f"--config={tmp_path / 'config.py'}", f"--output={tmp_path / 'whole'}", "--workers=1")

    output = tmp_path / "killed"
    for sign, ended_by, status in (
        ("work/extract-*/*.json", signal.SIGKILL, -signal.SIGKILL),
        ("work/sketch-*/*", signal.SIGHUP, -signal.SIGHUP),
        ("work/copies-*/*", signal.SIGTERM, -signal.SIGTERM),
        ("work/tokenizer-*/*", signal.SIGINT, 130),
        ("work/encode-*/*", signal.SIGKILL, -signal.SIGKILL),
    ):
        reader, unread = os.pipe()
        process = subprocess.Popen(
            [*command, f"--output={output}", "--workers=2"], stdout=unread, preexec_fn=heed_all_signals
        )
        os.close(reader), os.close(unread)
        while not any(output.glob(sign)) and process.poll() is None:
            time.sleep(0.002)
        process.send_signal(ended_by)
        assert process.wait() == status, f"the run had ended before {sign} was there"
        assert not (output / "manifest.json").exists()
    prepare(f"--config={tmp_path / 'config.py'}", f"--output={output}", "--workers=3")
    assert tree(output) == tree(tmp_path / "whole")
    manifest = json.loads((output / "manifest.json").read_text())
    assert manifest["sources"][1]["dropped"]["exact duplicate"]["documents"] == 100
    assert len(manifest["parts"]) >= 4, "there was something to share out"


def heed_all_signals():
    """Restores the signals that are ignored if pytest itself runs in the background or under nohup."""
    for number in (signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)


def test_help_lists_the_options():
    done = typed_command("prepare", "--help")
    assert "python -m gptjax.prepare --input=python-stdlib" in done.stdout
    assert "--validation_fraction" in done.stdout and "Share of the text held out" in done.stdout


def test_user_errors_end_in_one_line(corpus, tmp_path):
    output = f"--output={tmp_path / 'out'}"
    (tmp_path / "one.txt").write_text("a single document\n" * 100)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.doc").write_text("precious")
    single = f"--input={tmp_path / 'one.txt'}"
    for flags, message in [
        ([], "give one of --input, --pairs, --labelled, --preferences, --conversations and --config"),
        ([f"--input={tmp_path / 'nowhere'}", output], f"--input: '{tmp_path / 'nowhere'}': no such file or folder"),
        (
            [f"--pairs={tmp_path / 'mine'}", output],
            f"--pairs='{tmp_path / 'mine'}': no file that a 'pairs' source reads",
        ),
        ([single, f"--test_input={tmp_path / 'no'}", output], f"--test_input: '{tmp_path / 'no'}': no such file"),
        ([f"--input={corpus}", output, "--vocab_size=8192"], "--vocab_size=8192: larger than this corpus can give, at"),
        ([single, output, "--split_by=document"], "there is one document; --split_by='tail' holds out"),
        ([single, output, "--validation_fraction=2"], "--validation_fraction=2.0: must be in [0, 1)"),
        ([f"--input={corpus}", output, "--encoding_errors=error"], "b.txt: not UTF-8 at byte 6"),
        (
            [f"--input={corpus}", output, "--tokenizer=wordpiece"],
            "--tokenizer='wordpiece': expected one of bpe",
        ),
        ([f"--input={corpus}", output, "--tokenizer=byte", "--vocab_size=999"], "has 265 tokens"),
        ([single, f"--output={tmp_path / 'mine'}", "--overwrite"], "holds 'thesis.doc'; choose a new folder"),
        ([single, f"--output={tmp_path / 'one.txt'}"], "must be a folder, there is a file of that name"),
        (
            [single, output, f"--test_input={tmp_path / 'one.txt'}", "--test_documents=3"],
            "--test_documents=3: must not be given together with --test_input",
        ),
        ([single, output, "--vocab_sise=3"], "--vocab_sise: unknown flag; did you mean --vocab_size?"),
        ([single, output, "--split_by=line"], "split_by"),
        ([single, output, "stray"], "unexpected argument 'stray'"),
    ]:
        assert message in refused(*flags)
    assert not (tmp_path / "out" / "manifest.json").exists()
    assert (tmp_path / "mine" / "thesis.doc").read_text() == "precious"


def test_if_all_documents_are_blank_this_is_reported_and_nothing_remains(tmp_path):
    (tmp_path / "in").mkdir()
    for name, text in {"a": " \n\t\n", "b": "\u200b\ufeff\n", "c": ""}.items():
        (tmp_path / "in" / f"{name}.txt").write_text(text)
    said = refused(f"--input={tmp_path / 'in'}", f"--output={tmp_path / 'data' / 'out'}", "--workers=1")
    assert said.endswith("no document in 3 files (empty or blank: 3)") and not (tmp_path / "data").exists()

    (tmp_path / "in" / "d.txt").write_text("one line " * 10 + "\n\n\n")
    output = tmp_path / "out"
    flags = [f"--input={tmp_path / 'in'}", f"--output={output}", "--workers=1", "--tokenizer=byte"]
    refused(*flags, "--split_by=document")
    assert list(output.glob("work/extract-*/*.parquet")), "what another start would use stays"
    said = prepare(*flags).stdout
    assert "skipped 3: empty or blank" in said and "93 B" in said and "MB" not in said
    assert json.loads((output / "manifest.json").read_text())["splits"]["validation"]["documents"] == 1


@pytest.mark.parametrize("by", ["tail", "document"])
def test_all_counts_of_documents_agree(corpus, tmp_path, by):
    output = tmp_path / "out"
    flags = ["--tokenizer=char", f"--split_by={by}", "--validation_fraction=0.2", "--workers=1"]
    said = prepare(f"--input={corpus}", f"--output={output}", *flags).stdout
    stages = {line.split()[0]: line for line in said.splitlines() if "documents" in line and "/s" in line}
    assert stages.keys() >= {"extract", "survey", "encode"}
    assert all(" 61 documents " in line for line in stages.values())
    card, manifest = (output / "card.md").read_text(), json.loads((output / "manifest.json").read_text())
    size = size_text(sum(section["bytes"] for section in manifest["splits"].values()))
    assert f"|  | left | 61 | {size} |" in card
    assert f", {size} " in stages["encode"] and f"| input | read | 61 | {size} |" in card
    both = sum(section["documents"] for section in manifest["splits"].values())
    shared = (both == 122, "counted in both splits" in card, "both splits count a document" in said)
    assert shared == (by == "tail",) * 3 and (both == 61) == (by == "document")


def test_a_reused_tokenizer_may_be_in_the_folder_that_is_overwritten(corpus, tmp_path):
    flags = [f"--input={corpus}", f"--output={tmp_path / 'out'}", "--validation_fraction=0.2"]
    prepare(*flags, "--tokenizer=char")
    before = load(tmp_path / "out").hash
    prepare(*flags, f"--tokenizer={tmp_path / 'out'}", "--overwrite")
    assert load(tmp_path / "out").hash == before
