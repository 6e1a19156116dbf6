"""The road command: stages that run, are skipped, fail, are killed and change; and the roads of configs/road."""

import json
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from commands import run_command
from waiting import until

from gptjax.config import ConfigError, default, to_json
from gptjax.roads import completion
from gptjax.roads.definition import Stage, load_road
from gptjax.roads.markers import keys_of
from gptjax.settings import freeze

REPOSITORY = Path(__file__).parents[1]

# Writes a file of the words that it is given, and a line about each call into a log beside the script.
SCRIPT = """
import os, pathlib, signal, sys, time
output, *words = [argument.partition("=")[2] for argument in sys.argv[1:]]
log = pathlib.Path(__file__).with_name("log")
log.open("a").write(f"{output} {' '.join(words)}\\n")
if "fail" in words and not pathlib.Path(__file__).with_name("mended").exists():
    sys.exit(3)
if "kill" in words and log.read_text().count(" kill\\n") == 1:
    os.kill(os.getppid(), signal.SIGKILL)
    sys.exit(1)
if "wait" in words and log.read_text().count(" wait\\n") == 1:
    os.makedirs(output)
    def save(*_):  # like a run that is asked to stop, which ends without an error
        pathlib.Path(__file__).with_name("saved").touch()
        sys.exit(0)
    signal.signal(signal.SIGTERM, save)
    pathlib.Path(__file__).with_name("waiting").touch()
    time.sleep(600)
os.makedirs(output, exist_ok=True)
pathlib.Path(output, "words").write_text(" ".join(words) + sys.stdin.read() if "read" in words else " ".join(words))
"""
ROAD = """
from gptjax.roads import Road, Stage

def get_road(arg="one", *, workdir, text, chats):
    script = {script!r}
    def stage(name, word, *reads, lines=()):
        makes = f"{{workdir}}/{{name}}"
        return Stage(name, f"makes {{name}}", (script, f"--output={{makes}}", f"--word={{word}}"), makes, reads, lines)
    first = stage("first", arg, *(text.split(",") if text else ()))
    second = stage("second", "two", first.makes)
    other = stage("other", "read", lines=("a line", "and 'another'"))
    return Road((first, second, other), opens=(("go on", ("chat", f"--workdir={{workdir}}")), ("read", "a file")))
"""


@pytest.fixture
def place(tmp_path):
    """A folder with a road and its script."""
    (tmp_path / "stage.py").write_text(SCRIPT)
    (tmp_path / "road.py").write_text(ROAD.format(script=str(tmp_path / "stage.py")))
    return tmp_path


def walk(place, *flags, arg="one", workdir="w"):
    return run_command("road", f"--config={place}/road.py:{arg}", f"--workdir={place / workdir}", *flags)


def calls(place):
    """The stages that ran since the last look."""
    log = place / "log"
    lines = log.read_text().splitlines() if log.exists() else []
    log.unlink(missing_ok=True)
    return [Path(line.rpartition(" ")[0]).name for line in lines]


def test_stages_run_in_their_order_once_and_the_way_is_open_at_the_end(place):
    done = walk(place)
    assert done.returncode == 0, done.stderr
    assert calls(place) == ["first", "second", "other"]
    assert (place / "w/other/words").read_text() == "reada line\nand 'another'\n"
    assert f"gptjax.chat --workdir={place}/w\nread:\n  a file\n" in done.stdout
    again = walk(place)
    assert again.returncode == 0 and calls(place) == [] and again.stdout.count("done before") == 3


def test_a_printed_command_can_be_copied_into_a_shell(place):
    name = 'it\'s $(touch here) & there; "x" ü'
    listed = walk(place, "--dry_run", workdir=name)
    commands = [line for line in listed.stdout.splitlines() if not line.startswith("#")]
    assert listed.returncode == 0 and len(commands) == 3 and calls(place) == []
    for command in commands:
        subprocess.run(command, shell=True, check=True, cwd=place)
    assert calls(place) == ["first", "second", "other"] and not (place / "here").exists()
    assert (place / name / "other/words").read_text() == "reada line\nand 'another'\n"
    assert walk(place, workdir=name).returncode == 0 and (place / name / "second/words").read_text() == "two"


def test_a_failed_stage_says_which_and_the_same_command_goes_on_with_it(place):
    failed = walk(place, arg="fail")
    assert failed.returncode == 1 and calls(place) == ["first"]
    assert failed.stderr == (
        "error: stage first ended with exit status 3. Give the same command again when the cause is gone\n"
    )
    (place / "mended").touch()
    assert walk(place, arg="fail").returncode == 0 and calls(place) == ["first", "second", "other"]


def test_a_command_that_succeeds_without_its_result_has_failed(place):
    (place / "stage.py").write_text("")
    failed = walk(place)
    assert failed.returncode == 1 and f"is not complete: {place}/w/first is not there." in failed.stderr


@pytest.mark.parametrize(
    "saved, duration, what", [(9, "10 steps", "stopped at step 9 of 10"), (10, "10 steps", ""), (5, "40 tokens", "")]
)
def test_a_run_that_stopped_before_its_end_is_not_complete(tmp_path, monkeypatch, saved, duration, what):
    config = default()
    config.training.update(duration=duration, batch_size=2)
    config.data.sequence_length = 4
    (tmp_path / "config.json").write_text(to_json(freeze(config)))
    monkeypatch.setattr(completion, "saved_steps", lambda run: [saved - 1, saved])
    stage = Stage("base", "", ("train", f"--workdir={tmp_path}"), str(tmp_path))
    assert completion.missing(stage) == (what and f"{tmp_path} {what}")


def test_a_road_that_was_killed_goes_on_with_the_stage_that_it_was_in(place):
    killed = walk(place, arg="kill")
    assert killed.returncode == -signal.SIGKILL and (place / "log").read_text().count("\n") == 1
    assert walk(place, arg="kill").returncode == 0 and calls(place) == ["first", "first", "second", "other"]


def test_a_signal_is_passed_on_to_the_command_of_the_stage_and_ends_the_road(place):
    road = subprocess.Popen(
        [sys.executable, "-m", "gptjax.road", f"--config={place}/road.py:wait", f"--workdir={place}/w"],
        cwd=REPOSITORY,
        stdout=subprocess.DEVNULL,
    )
    until((place / "waiting").exists)
    road.send_signal(signal.SIGTERM)
    road.communicate()
    assert (place / "saved").exists() and road.returncode == 128 + signal.SIGTERM and calls(place) == ["first"]


def test_a_changed_command_is_refused_until_overwrite_and_then_all_that_depends_on_it_is_made_again(place):
    walk(place)
    calls(place)
    refused = walk(place, arg="1")
    assert refused.returncode == 2 and calls(place) == []
    assert "error: stage first: its command, which was: " in refused.stderr and "--overwrite removes" in refused.stderr
    (place / "w/second/stale").touch()
    assert walk(place, "--overwrite", arg="1").returncode == 0
    assert calls(place) == ["first", "second"]  # other does not depend on it
    assert (place / "w/first/words").read_text() == "1" and not (place / "w/second/stale").exists()


def test_a_changed_input_is_noticed(place):
    (place / "texts").mkdir()
    (place / "texts/a.txt").write_text("a")
    given = f"--text={place}/texts"
    assert walk(place, given).returncode == 0 and walk(place, given).stdout.count("done before") == 3
    (place / "texts/b.txt").write_text("b")
    refused = walk(place, given)
    assert refused.returncode == 2 and "stage first: the files that it reads changed since" in refused.stderr


def test_a_result_that_was_removed_is_made_again(place):
    walk(place)
    calls(place)
    shutil.rmtree(place / "w/second")
    assert walk(place).returncode == 0 and calls(place) == ["second"]


def test_overwrite_removes_nothing_outside_of_the_folder(place):
    walk(place)
    (place / "precious").mkdir()
    (place / "precious/file").touch()
    shutil.rmtree(place / "w/first")
    (place / "w/first").symlink_to(place / "precious")
    refused = walk(place, "--overwrite", arg="1")
    assert refused.returncode == 2 and "is not inside --workdir=" in refused.stderr
    assert (place / "precious/file").exists()


def test_until_and_only_choose_stages(place):
    assert walk(place, "--until=second").returncode == 0 and calls(place) == ["first", "second"]
    done = walk(place, "--only=second")
    assert done.returncode == 0 and calls(place) == ["second"] and "gptjax.chat" not in done.stdout
    (place / "w/second/stale").touch()
    assert walk(place, "--only=second", "--overwrite").returncode == 0 and not (place / "w/second/stale").exists()


@pytest.mark.parametrize(
    "flags, said",
    [
        (
            ["--until=secnd"],
            "--until=secnd: the road has no such stage; did you mean second?; its stages: first, second",
        ),
        (["--only=first,x"], "--only=x: the road has no such stage; its stages: first, second, other"),
        (["--only=first", "--until=first"], "--until and --only: only one of them can be given"),
        (["--text=nowhere"], "--text=nowhere: must be a file or a folder, there is nothing of this name"),
        (["--price=2 USD"], "--price=2 USD: needs --hardware"),
        (["--hardware=H100"], "no stage of this road says how it is planned"),
    ],
)
def test_mistakes_are_named_before_anything_runs(place, flags, said):
    refused = walk(place, *flags)
    assert refused.returncode == 2 and said in refused.stderr and calls(place) == []


def test_a_damaged_marker_is_one_sentence(place):
    walk(place)
    marker = place / "w/road/first.json"
    for content in (b"", b"[1]", b"{}", json.dumps({**json.loads(marker.read_text()), "seconds": "2"}).encode()):
        marker.write_bytes(content)
        refused = walk(place)
        assert (
            refused.returncode == 2
            and f"{marker}" in refused.stderr
            and "remove it to do the stage again" in refused.stderr
        )


@pytest.mark.parametrize(
    "body, said",
    [
        ("return Road(())", "a road needs stages"),
        ("return Road((1,))", "stage 1 is 1: make each with Stage"),
        ("return Road((Stage('A b', '', ('chat',)),))", "stage 1: name = 'A b': must be small letters"),
        (
            "return Road((Stage('a', '', ('caht',)),))",
            "'caht' is neither a command of gptjax nor a file.py; did you mean chat?",
        ),
        ("return Road((Stage('a', '', ('no.py',)),))", "there is no file no.py"),
        ("return Road((Stage('a', '', 'chat'),))", "command = 'chat': must be a tuple of texts"),
        ("return Road((Stage('a', '', ('chat', 1)),))", "must be a tuple of texts"),
        ("return Road((Stage('a', '', ('chat',)), Stage('a', '', ('chat',))))", "two stages have it"),
        ("return Road((Stage('a', '', ('chat',), 'f'), Stage('b', '', ('chat',), 'f')))", "an earlier stage makes it"),
        ("return 1", "get_road() must return a Road, not a int"),
    ],
)
def test_a_mistake_in_a_road_is_one_sentence(tmp_path, body, said):
    file = tmp_path / "road.py"
    file.write_text(f"from gptjax.roads import Road, Stage\n\ndef get_road(*, workdir, text, chats):\n    {body}\n")
    with pytest.raises(ConfigError) as refused:
        load_road(str(file), {"workdir": "w", "text": "", "chats": ""})
    assert said in str(refused.value)


def test_a_road_without_the_keywords_is_refused(tmp_path):
    file = tmp_path / "road.py"
    file.write_text("def get_road(workdir): pass\n")
    with pytest.raises(ConfigError, match="must take the keywords workdir, text, chats"):
        load_road(str(file), {"workdir": "w", "text": "", "chats": ""})


def test_a_key_follows_from_the_command_its_code_and_what_it_reads(tmp_path):
    config = tmp_path / "config.py"
    config.write_text("1")
    first = Stage("a", "", ("prepare", f"--output={tmp_path}/a"), f"{tmp_path}/a")
    second = Stage("b", "", ("train", f"--config={config}:big"), f"{tmp_path}/b", (f"{tmp_path}/a/part",))
    keys = keys_of([first, second])
    assert keys == keys_of([first, second])
    changed = Stage("a", "", ("prepare", "--seed=1", f"--output={tmp_path}/a"), f"{tmp_path}/a")
    assert keys_of([changed, second])["b"] != keys["b"] != keys["a"]
    config.write_text("2")
    assert keys_of([first, second])["b"] != keys["b"] and keys_of([first, second])["a"] == keys["a"]


# --- The roads of configs/road ---------------------------------------------------------------------------------------


def own(tmp_path):
    (tmp_path / "texts").mkdir()
    (tmp_path / "chats.jsonl").touch()
    return {"text": str(tmp_path / "texts"), "chats": str(tmp_path / "chats.jsonl")}


@pytest.mark.parametrize("given", [(), ("text",), ("chats",), ("text", "chats")])
def test_the_laptop_road_needs_documentation_unless_text_and_chats_are_given(tmp_path, monkeypatch, given):
    monkeypatch.chdir(REPOSITORY)
    inputs = {"text": "", "chats": ""} | {name: path for name, path in own(tmp_path).items() if name in given}
    road = load_road("configs/road/laptop.py", {"workdir": "w", **inputs})
    names = [stage.name for stage in road.stages]
    assert ("documentation" in names) == (len(given) < 2) and ("questions" in names) == (not given)
    text = " ".join(part for stage in road.stages for part in stage.command)
    assert all(inputs[name] in text for name in given)
    made = {stage.makes for stage in road.stages if stage.makes} | {path for path in inputs.values() if path}
    for stage in road.stages:  # what a stage reads is made before it, or given
        assert all(any(path == each or path.startswith(f"{each}/") for each in made) for path in stage.reads)


@pytest.mark.parametrize("name", ["laptop", "h100"])
def test_the_report_of_a_road_has_samples_and_says_how_its_export_is_loaded(monkeypatch, name):
    monkeypatch.chdir(REPOSITORY)
    road = load_road(f"configs/road/{name}.py", {"workdir": "w", "text": "", "chats": ""})
    stages = {stage.name: stage for stage in road.stages}
    flags = dict(part.removeprefix("--").partition("=")[::2] for part in stages["report"].command[1:])
    assert flags["export"] == stages["export"].makes in stages["report"].reads and int(flags["samples"]) > 0


def test_training_on_one_h100_is_planned_as_its_config_says_and_takes_less_than_four_hours():
    done = run_command(
        "road", "--config=configs/road/h100.py", "--hardware=H100", "--price=2.50 USD", GPTJAX_HISTORY=""
    )
    assert done.returncode == 0, done.stderr
    rows = {line.split()[0]: line for line in done.stdout.splitlines()[-3:]}
    documented = (REPOSITORY / "configs/road/h100.py").read_text()
    for name, row in rows.items():
        figures = row.replace(" USD", "").split()[1:]
        assert re.search(rf"^  {name} +{r' +'.join(map(re.escape, figures))}$", documented, re.M), row
    hours, minutes, _ = re.search(r"to ([0-9:]+)\)", rows["training"])[1].split(":")
    assert set(rows) == {"base", "chat", "training"} and int(hours) + int(minutes) / 60 < 4


@pytest.mark.slow
def test_the_laptop_road_begins_with_nothing_but_the_installed_packages(tmp_path):
    done = run_command("road", "--config=configs/road/laptop.py:smoke", f"--workdir={tmp_path}/w", "--until=corpus")
    assert done.returncode == 0, done.stderr
    assert "tokens to train" in done.stdout
    rows = [json.loads(line) for line in (tmp_path / "w/documentation/chats.jsonl").read_text().splitlines()]
    held_out = (tmp_path / "w/documentation/held_out/absl/docs.jsonl").read_text()
    answers = {message["content"] for row in rows for message in row["messages"] if message["role"] == "assistant"}
    assert len(answers) > 100 and not [answer for answer in answers if len(answer) > 30 and answer in held_out]


@pytest.mark.exhaustive
@pytest.mark.parametrize("is_own", [False, True])
def test_every_stage_of_the_laptop_road_runs(tmp_path, is_own):
    arguments = ["--config=configs/road/laptop.py:smoke", f"--workdir={tmp_path}/w"]
    if is_own:
        given = own(tmp_path)
        arguments += [f"--{name}={path}" for name, path in given.items()]
        documents = [f"Document {number} has {number} words. " * 20 for number in range(200)]
        Path(given["text"], "a.txt").write_text("\n\n".join(documents))
        pairs = [
            {"prompt": f"What is {number}?", "completion": f"A number above {number - 1}."} for number in range(99)
        ]
        Path(given["chats"]).write_text("".join(json.dumps(pair) + "\n" for pair in pairs))
    done = run_command("road", *arguments)
    assert done.returncode == 0, done.stderr
    assert "not done" not in done.stdout and "validation loss" in done.stdout and "bits per byte" in done.stdout
    assert ("summaries" in done.stdout) != is_own and (tmp_path / "w/export/config.json").exists()
    assert run_command("road", *arguments).stdout.count("done before") == len(list((tmp_path / "w/road").iterdir()))
