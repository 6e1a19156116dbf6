"""The training command from end to end in one process: a run's folder, its metrics, and errors."""

import itertools
import json
import shutil
import sys

import jax
import numpy as np
import pytest
from commands import run_command
from guide import snippet
from ml_collections import ConfigDict
from prepared_folders import write_prepared
from table_answerer import CHOICES, choice_rows, write_task
from training_runs import train_opened

from gptjax import train as command
from gptjax.config import ConfigError, RunError, default, from_json, get
from gptjax.forecast import micro_batch
from gptjax.runs.comparison import differences, read_runs
from gptjax.sweeping import Sweep, over
from gptjax.sweeping.runs import plan_runs
from gptjax.tokenizer import ByteTokenizer
from gptjax.training.checkpoints.loading import load_for_inference, load_params
from gptjax.training.checkpoints.run_metadata import check_warm_start, code_changes
from gptjax.training.records.writers import read_metrics

pytestmark = pytest.mark.slow

TEXT = "the quick brown fox jumps over the lazy dog; "


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """A prepared folder of one repeated sentence with a byte tokenizer."""
    tokenizer = ByteTokenizer()
    ids = [*tokenizer.encode(TEXT * 40), tokenizer.eos_id]
    return write_prepared(
        tmp_path_factory.mktemp("prepared") / "data", train=[ids] * 4, validation=[ids], tokenizer=tokenizer
    )


@pytest.fixture(scope="module")
def tiny(data):
    def make(**fields):
        config = default()
        config.model.update(num_layers=1, width=16, num_heads=2)
        config.data.update(path=str(data), sequence_length=16)
        config.optimizer.learning_rate = 1e-2
        config.schedule.warmup = "2 steps"
        config.training.update(duration="12 steps", batch_size=8)
        config.mesh.data = 8
        config.checkpoint.every = "6 steps"
        config.evaluation.update(every="6 steps", tokens=256)
        config.logging.update(every="1 step", tensorboard=False, plots=False)
        for field, value in fields.items():
            section, name = field.split("__")
            config[section][name] = value
        return config

    return make


def go(config: ConfigDict, workdir):
    """Does what `main` does after parsing flags."""
    run = command.open_run(config, workdir)
    command.show_settings(run)
    train_opened(run)
    return read_metrics(workdir / "metrics.jsonl")


def losses(rows):
    return {row["step"]: row["train/loss"] for row in rows if "train/loss" in row}


@pytest.fixture(scope="module")
def plain(tiny, tmp_path_factory):
    """The folder of a run of twelve steps at a constant rate, to compare with and to start from. No test changes it."""
    folder = tmp_path_factory.mktemp("plain") / "run"
    go(tiny(schedule__name="constant"), folder)
    return folder


def test_a_run_learns_and_leaves_a_complete_folder(tiny, tmp_path, capsys):
    mesh = dict(mesh__fsdp=2, mesh__data=2, mesh__context=2)
    config = tiny(logging__plots=True, logging__tensorboard=True, evaluation__sample_every="12 steps", **mesh)
    rows = go(config, tmp_path)
    found = losses(rows)
    assert list(found) == list(range(1, 13))
    assert found[12] < found[1] - 1
    validation = [row for row in rows if "validation/loss" in row]
    assert [row["step"] for row in validation] == [6, 12]
    # with one byte per token, bits per byte are the loss in bits
    np.testing.assert_allclose(
        validation[-1]["validation/bits_per_byte"], validation[-1]["validation/loss"] / np.log(2)
    )
    assert {"tokens_per_second", "step_milliseconds", "mfu", "data_wait_fraction", "device_memory_bytes"} <= set(
        rows[-2]
    )
    names = {path.name for path in tmp_path.iterdir()}
    assert {"config.json", "tokenizer.json", "checkpoints", "metrics.jsonl", "tensorboard", "samples", "plots"} <= names
    saved = from_json((tmp_path / "config.json").read_text())
    assert saved.model.vocab_size > 0 and saved.model.attention == "xla" and saved.model.dtype == "float32"
    printed = capsys.readouterr().out
    assert "validation at step 12" in printed and "causal MFU" in printed and "finished" in printed


def test_the_same_command_continues_and_then_has_nothing_to_do(tiny, plain, tmp_path, capsys):
    go(tiny(training__duration="6 steps", schedule__name="constant"), tmp_path / "b")
    resumed = go(tiny(training__duration="12 steps", schedule__name="constant"), tmp_path / "b")
    assert losses(resumed) == losses(read_metrics(plain / "metrics.jsonl"))
    assert "resumed from step 6" in capsys.readouterr().out
    go(tiny(training__duration="12 steps", schedule__name="constant"), tmp_path / "b")
    assert "nothing to do" in capsys.readouterr().out


def test_the_micro_batch_that_fits_is_kept_when_the_run_is_resumed(tiny, tmp_path, monkeypatch, capsys):
    """The batch stays, so the run equals one with that number of micro-batches; what came is recorded."""
    fields = dict(training__batch_size=32, schedule__name="constant", evaluation__every="")
    by_hand = go(tiny(training__gradient_accumulation_steps=2, **fields), tmp_path / "by_hand")
    sizes = []

    def bytes_of(made):
        sizes.append(made.rows_at_once)
        return made.rows_at_once << 20

    monkeypatch.setattr(micro_batch, "_compiled_bytes", bytes_of)
    monkeypatch.setattr(micro_batch, "free_bytes_per_device", lambda: (64 + 27) << 20)  # 64 MiB are kept
    auto = tiny(training__batch_per_device="auto", **fields)
    given = dict(training__batch_per_device="auto", training__gradient_accumulation_steps=4)
    go(tiny(training__duration="6 steps", **given, **fields), tmp_path / "run")
    printed = capsys.readouterr().out
    assert "auto: 2 sequences at once on each device, gradient_accumulation_steps=2; a step" in printed
    assert "training.gradient_accumulation_steps=4 is replaced by 2" in printed
    assert sizes[:2] == [32, 16]
    compiled = len(sizes)
    monkeypatch.setattr(micro_batch, "free_bytes_per_device", lambda: 1 << 40)  # another machine
    monkeypatch.setenv("GPTJAX_HISTORY", str(tmp_path / "runs.jsonl"))
    resumed = go(auto, tmp_path / "run")
    printed = capsys.readouterr().out
    assert "gradient_accumulation_steps=2, as before" in printed and len(sizes) == compiled
    assert "is replaced" not in printed  # nothing was given
    assert losses(resumed) == losses(by_hand)
    saved = from_json((tmp_path / "run" / "config.json").read_text())
    assert saved.training.batch_per_device == "2" and saved.training.gradient_accumulation_steps == 2
    assert not (tmp_path / "runs.jsonl").exists()  # six steps are too few
    go(tiny(training__duration="30 steps", **fields), tmp_path / "by_hand")
    (row,) = map(json.loads, (tmp_path / "runs.jsonl").read_text().splitlines())
    assert row["steps"] == 18 and row["measured"]["step_seconds"] > 0 and "predicted" in capsys.readouterr().out


def test_a_run_that_cannot_fit_is_refused_before_it_is_compiled(tiny, tmp_path, monkeypatch):
    for name in ("bytes_per_device", "free_bytes_per_device"):
        monkeypatch.setattr(micro_batch, name, lambda: 10_000)
    for at_once in ("", "auto"):
        with pytest.raises(ConfigError, match=r"the training state takes .* but a device has 0\.0 GiB"):
            command.open_run(tiny(training__batch_per_device=at_once), tmp_path)


def test_a_warm_start_takes_the_other_runs_parameters(tiny, plain, tmp_path):
    config = tiny(training__init_from=str(plain), training__duration="1 step", schedule__warmup="0 steps")
    run = command.open_run(config, tmp_path / "second")
    with jax.set_mesh(run.plan.mesh), command.open_checkpoints(run) as checkpoints:
        state, _, notes = command.start(run, checkpoints)
    expected, _ = load_params(plain)
    jax.tree.map(np.testing.assert_array_equal, jax.device_get(state.params), jax.device_get(expected))
    assert state.step == 0 and "step 12" in notes[0] and len(notes) == 1


def test_a_warm_start_needs_the_same_tokenizer_and_reports_differences_of_the_model(tiny, plain, tmp_path):
    config = tiny(training__init_from=str(plain), model__rope_theta=5.0)
    run = command.open_run(config, tmp_path / "second")
    with jax.set_mesh(run.plan.mesh), command.open_checkpoints(run) as checkpoints:
        *_, notes = command.start(run, checkpoints)
        assert any("model.rope_theta" in note and "5.0" in note for note in notes)
        run.data.tokenizer_hash = "another"
        with pytest.raises(ConfigError, match="another"):
            command.start(run, checkpoints)


def test_a_non_finite_loss_stops_the_run_and_is_not_saved(tiny, tmp_path):
    config = tiny(optimizer__name="sgd", optimizer__learning_rate=1e30, optimizer__gradient_clip=0.0)
    with pytest.raises(RunError, match=r"step \d+: loss .*on_nonfinite=skip"):
        go(config, tmp_path)
    assert not list((tmp_path / "checkpoints").glob("[0-9]*"))


def test_a_resumed_mixture_of_experts_is_exact_and_so_are_its_biases(tiny, tmp_path):
    experts = dict(num_experts=4, feedforward_width=8, router_bias=True, expert_capacity=1.0)
    fields = {f"model__{name}": value for name, value in experts.items()} | dict(schedule__name="constant")
    fields |= dict(logging__every="2 steps", evaluation__every="", mesh__fsdp=4, mesh__data=2)
    unbroken = go(tiny(**fields, logging__plots=True), tmp_path / "unbroken")
    go(tiny(**fields, training__duration="6 steps"), tmp_path / "broken")
    resumed = go(tiny(**fields), tmp_path / "broken")
    computed = [
        [{name: row[name] for name in row if name.startswith("train/")} for row in rows if "train/loss" in row]
        for rows in (unbroken, resumed)
    ]
    assert computed[0] == computed[1] and computed[0][-1]["train/expert_drops"] > 0
    assert np.shape(computed[0][-1]["train/expert_load"]) == (1, 4)
    params = [load_params(tmp_path / name)[0] for name in ("unbroken", "broken")]
    bias, other = (each["layers"]["feedforward"]["router_bias"] for each in params)
    assert np.any(bias) and np.array_equal(bias, other)
    assert (tmp_path / "unbroken/plots/expert_load.png").exists() and (tmp_path / "unbroken/plots/routers.png").exists()


def test_a_resumed_run_must_be_the_same_run(tiny, plain, tmp_path):
    shutil.copytree(plain, tmp_path, dirs_exist_ok=True)
    for fields, message in [
        (dict(model__width=64), r"model\.width"),
        (dict(data__sequence_length=8), r"sequence_length"),
        (dict(optimizer__name="lion"), r"optimizer\.name"),
        (dict(training__batch_size=16), r"batch_size"),
    ]:
        with pytest.raises(ConfigError, match=message):
            go(tiny(**fields), tmp_path)


@pytest.mark.parametrize(
    "fields, message",
    [
        (dict(training__batch_size=4), r"batch_size = 4: must be divisible by the 8 devices"),
        (dict(model__vocab_size=100), r"model\.vocab_size = 100: must be at least \d+, the size of the tokenizer"),
        (dict(mesh__data=16), "is for 16 devices, and this run has 8"),
        (dict(model__attention="cudnn"), "the platform is cpu"),
        (dict(data__path=""), r"data\.path"),
        (
            dict(evaluation__sample_every="6 steps", evaluation__sample_prompt="x" * 17),
            r"18 tokens, with the begin token, .* = 16",
        ),
        (dict(evaluation__sample_every="6 steps", evaluation__sample_tokens=0), r"sample_tokens = 0"),
        (dict(schedule__warmup="13 steps"), r"schedule\.warmup"),
        (dict(evaluation__tasks="no_such_card"), r"evaluation\.tasks: there is no task"),
        (dict(evaluation__tasks="hellaswag"), r"hellaswag: there is no .*\(evaluation\.task_data names the folder"),
        (dict(evaluation__tasks="blimp", evaluation__every=""), r"must be '' where evaluation\.every = ''"),
        (dict(evaluation__tasks="blimp", evaluation__task_data="no/folder"), r"evaluation\.task_data = 'no/folder'"),
    ],
)
def test_contradictory_settings_fail_before_compiling(tiny, tmp_path, fields, message):
    with pytest.raises(ConfigError, match=message):
        command.open_run(tiny(**fields), tmp_path)
    assert not list(tmp_path.iterdir())


def test_evaluation_can_be_off(tiny, tmp_path):
    rows = go(tiny(evaluation__every="", schedule__name="constant"), tmp_path)
    assert not [row for row in rows if "validation/loss" in row]


class Broken(Exception):
    pass


def break_after(monkeypatch, steps):
    """Makes training fail when it requests the batch after this many steps of a start."""
    batches = command.device_batches

    def breaking(*arguments):
        yield from itertools.islice(batches(*arguments), steps)
        raise Broken

    monkeypatch.setattr(command, "device_batches", breaking)


def test_rows_are_means_of_their_intervals_also_after_an_interruption(tiny, plain, tmp_path, monkeypatch):
    rough = dict(checkpoint__every="3 steps", evaluation__every="4 steps", logging__every="5 steps")
    rough |= dict(schedule__name="constant")
    each = losses(read_metrics(plain / "metrics.jsonl"))
    unbroken = go(tiny(**rough), tmp_path / "unbroken")
    means = {5: np.mean([each[s] for s in range(1, 6)]), 10: np.mean([each[s] for s in range(6, 11)])}
    means[12] = np.mean([each[11], each[12]])
    assert losses(unbroken) == pytest.approx(means, rel=1e-6)
    assert [row["train/step_loss"] for row in unbroken if "train/loss" in row] == [each[5], each[10], each[12]]
    # one row per step with training and evaluation metrics
    assert [row["step"] for row in unbroken] == [3, 4, 5, 6, 8, 9, 10, 12]
    assert {"train/loss", "validation/loss", "tokens", "learning_rate"} <= unbroken[-1].keys()
    with monkeypatch.context() as patch, pytest.raises(Broken):
        break_after(patch, 8)
        go(tiny(**rough), tmp_path / "broken")
    again = go(tiny(**rough), tmp_path / "broken")
    assert losses(again) == losses(unbroken) and [row["step"] for row in again] == [row["step"] for row in unbroken]


def test_the_history_records_changes_with_their_steps(tiny, tmp_path, capsys):
    first = tiny(training__duration="6 steps")
    go(first, tmp_path)
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    go(
        tiny(training__duration="6 steps", logging__every="2 steps", logging__tensorboard=True), tmp_path
    )  # no step left
    assert before == {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    with open(tmp_path / "history.jsonl", "ab") as file:
        file.write(b'{"step": 6, "ti')  # of a start that was killed
    go(tiny(evaluation__tokens=64), tmp_path)
    rows = read_metrics(tmp_path / "history.jsonl")
    assert [(row["step"], row["changes"]) for row in rows] == [
        (0, {}),
        (6, {"evaluation.tokens": [256, 64], "training.duration": ["6 steps", "12 steps"]}),
    ]
    assert rows[0]["data"] == rows[1]["data"] and rows[0]["validation"] != rows[1]["validation"]
    assert from_json((tmp_path / "config.json").read_text()).evaluation.tokens == 64
    printed = " ".join(capsys.readouterr().out.split())
    assert "THE LEARNING RATE JUMPS at step 7: 0.001 with the old settings, 0.0055 with the new ones" in printed
    assert "1 earlier validation scores were measured on other windows" in printed and printed.count("best so far") == 2


def test_a_moving_average_cannot_be_switched_on_or_off_during_a_run(tiny, plain, tmp_path):
    shutil.copytree(plain, tmp_path / "0.0")
    constant = dict(schedule__name="constant")
    go(tiny(**constant, training__duration="6 steps", training__ema_decay=0.99), tmp_path / "0.99")
    for there, here in ((0.0, 0.99), (0.99, 0.0)):
        workdir = tmp_path / str(there)
        with pytest.raises(ConfigError, match=rf"training\.ema_decay: was {there}, is now {here}"):
            go(tiny(**constant, training__ema_decay=here), workdir)
    *_, row = go(tiny(**constant, training__ema_decay=0.5), tmp_path / "0.99")  # another decay is noted
    assert row["step"] == 12


@pytest.mark.parametrize("batch_size, note", [(8, None), (1024, "it reads each window of {data} 2.27 times")])
def test_the_settings_show_the_number_of_epochs(tiny, data, tmp_path, capsys, batch_size, note):
    command.show_settings(command.open_run(tiny(training__batch_size=batch_size), tmp_path))
    printed = " ".join(capsys.readouterr().out.split())
    windows = -(-(4 * (len(TEXT) * 40 + 1) - 1) // 16)
    assert f"{12 * batch_size / windows:.3g} (7,204 tokens, {windows} windows available)" in printed
    assert "16 windows of 1,801 tokens, set" in printed
    assert ("REPEATED" in printed) == bool(note)
    if note:
        assert note.format(data="".join(str(data).split())) in printed.replace("".join(str(data).split()), str(data))


@pytest.fixture(scope="module")
def second(tmp_path_factory):
    """Another prepared folder with documents of different lengths."""
    tokenizer = ByteTokenizer()
    documents = [[*tokenizer.encode("waltz, bad nymph, for quick jigs vex " * n)[: 61 * n], 256] for n in range(1, 5)]
    return write_prepared(
        tmp_path_factory.mktemp("prepared") / "second", train=documents, validation=documents, tokenizer=tokenizer
    )


@pytest.mark.parametrize(
    "windows, mixed", [pytest.param("contiguous", False, marks=pytest.mark.exhaustive), ("packed", True)]
)
def test_one_model_has_one_score(tiny, data, second, tmp_path, windows, mixed):
    path = f"{data}=0.7,{second}=0.3" if mixed else str(data)
    plain = dict(data__path=path, data__windows=windows, evaluation__tokens=300, model__initialization_std=0.5)
    scores, params = [], None
    for fields in (
        {},
        dict(training__batch_size=16, training__gradient_accumulation_steps=2),
        dict(training__batch_size=64, training__gradient_accumulation_steps=8),
        dict(training__batch_size=40),  # which does not divide the number of windows
        dict(training__batch_size=4, mesh__data=1, mesh__fsdp=2, mesh__context=2, mesh__tensor=2),
        dict(training__loss_chunk=8, data__workers=1),
    ):
        config = tiny(**plain | {"mesh__data": 8} | fields)
        config.seed = len(scores)
        run = command.open_run(config, tmp_path)
        with jax.set_mesh(run.plan.mesh):
            params = jax.device_get(run.plan.trainer.init().params) if params is None else params
            scores.append(command.make_evaluation(run)(run.plan.trainer.init(params)))
    assert scores[0]["validation/tokens"] > 280
    for score in scores[1:]:
        same = ("validation/tokens", "validation/set")
        assert [score[name] for name in same] == [scores[0][name] for name in same]
        np.testing.assert_allclose(score["validation/loss"], scores[0]["validation/loss"], rtol=2e-6)


def test_the_moving_average_is_evaluated(tiny, plain, tmp_path):
    fast = read_metrics(plain / "metrics.jsonl")
    slow = go(tiny(schedule__name="constant", training__ema_decay=0.99), tmp_path / "ema")
    assert losses(fast) == pytest.approx(losses(slow), rel=1e-6)  # two programs, which may be rounded differently
    lag = slow[-1]["validation/loss"] - fast[-1]["validation/loss"]
    assert 0.05 < lag < 1  # it lags behind the parameters, but is far from the initial ones, which had 5.6
    assert json.loads((tmp_path / "ema" / "config.json").read_text())["training"]["ema_decay"] == 0.99


def test_a_missing_run_to_start_from_is_reported_with_the_field(tiny, tmp_path):
    run = command.open_run(tiny(training__init_from=str(tmp_path / "nowhere")), tmp_path / "run")
    with jax.set_mesh(run.plan.mesh), command.open_checkpoints(run) as checkpoints:
        with pytest.raises(ConfigError, match=r"^training\.init_from = .*nowhere: must be the folder of a run"):
            command.start(run, checkpoints)


def test_a_refused_run_leaves_no_folder(data, tmp_path):
    flags = ("--config=configs/text_tiny.py", f"--config.data.path={data}", "--config.model.lora_rank=2")
    done = run_command("train", *flags, f"--workdir={tmp_path}/new/run")
    assert done.returncode == 2 and "needs training.init_from" in done.stderr
    assert not (tmp_path / "new").exists()
    (tmp_path / "new").mkdir()
    (tmp_path / "new" / "notes.txt").write_text("mine")
    assert run_command("train", *flags, f"--workdir={tmp_path}/new").returncode == 2
    assert (tmp_path / "new" / "notes.txt").read_text() == "mine"


BASE = """
from gptjax.config import default

def get_config():
    config = default()
    config.data.path = {data!r}
    return config
"""


def test_a_users_own_optimizer_schedule_and_activation(tiny, tmp_path, monkeypatch):
    """The guide's file in the current folder works for training, resuming, sampling and sweeps, and so does its way
    to use a run in Python."""
    ideas = snippet("# my_ideas.py")
    (tmp_path / "my_ideas.py").write_text(ideas)
    monkeypatch.chdir(tmp_path)
    names = {"model.feedforward": "my_ideas:smooth", "schedule.name": "my_ideas:triangle"}
    names |= {"optimizer.name": "my_ideas:signs", "training.objective": "my_ideas:SmallNorm"}
    config = tiny(**{field.replace(".", "__"): name for field, name in names.items()})
    workdir = tmp_path / "run"
    rows = {row["step"]: row for row in go(config, workdir) if "train/loss" in row}
    assert [rows[step]["learning_rate"] for step in (3, 6, 12)] == pytest.approx([0.005, 0.01, 0.0])
    assert rows[12]["train/loss"] < rows[1]["train/loss"] and rows[1]["train/penalty"] == pytest.approx(16)
    saved = from_json((workdir / "config.json").read_text())
    assert {field: get(saved, field) for field in names} == names
    params = load_for_inference(workdir, own_functions=True)[0]
    assert "gate" in params["layers"]["feedforward"]

    shutil.rmtree(workdir / "checkpoints" / "12")
    again = {row["step"]: row for row in go(config, workdir) if "train/loss" in row}
    assert again[12]["train/loss"] == rows[12]["train/loss"]
    monkeypatch.delitem(sys.modules, "my_ideas")  # as in a new process
    (tmp_path / "my_ideas.py").write_text(ideas + "# mended\n")
    shutil.rmtree(workdir / "checkpoints" / "12")
    run = command.open_run(config, workdir)
    with jax.set_mesh(run.plan.mesh), command.open_checkpoints(run) as checkpoints:
        notes = command.start(run, checkpoints)[2]
    changes = [note for note in notes if note.startswith("changed: the code of my_ideas:")]
    assert len(changes) == 4 and all(", since step 6 (hash of its file: " in note for note in changes), notes
    of_model = [note for note in notes if "my_ideas:smooth" in note]
    metadata = load_for_inference(workdir, own_functions=True)[2]
    assert [f"changed: {change}" for change in code_changes(metadata, saved)] == changes
    assert [
        f"changed: {change}" for change in check_warm_start(metadata, run.config, run.data.tokenizer_hash)
    ] == of_model
    went_on = shutil.copytree(workdir, tmp_path / "went on")
    (went_on / "history.jsonl").write_text((workdir / "history.jsonl").read_text().splitlines(True)[0])
    codes = differences(read_runs([went_on, workdir]))["code of my_ideas:smooth"]
    assert codes[1].split(" → ")[0] == codes[0] and len(codes[1].split(" → ")) == 2

    here = f"{str(workdir)!r}, own_functions=True"
    exec(snippet("from gptjax.runs.trained_model").replace('"runs/mine"', here), names := {})  # trusted text
    assert names["logits_BTV"].shape == (1, 1 + len("Once upon"), saved.model.vocab_size)
    (greedy,) = names["generator"].generate(["Once upon"], max_new_tokens=1, temperature=0.0)
    assert greedy.tokens == [int(names["logits_BTV"][0, -1].argmax())]

    (tmp_path / "base.py").write_text(BASE.format(data=config.data.path))
    sweep = Sweep("base.py", over("optimizer.name", ["adamw", "my_ideas:signs"]))
    runs = plan_runs(sweep, tmp_path / "sweep", {})
    assert [run.config.optimizer.name for run in runs] == ["adamw", "my_ideas:signs"]
    assert all(":" not in run.workdir.name for run in runs)


def test_tasks_run_at_each_evaluation(tiny, plain, tmp_path):
    card = write_task(tmp_path, CHOICES, choice_rows(4))
    asked = dict(evaluation__tasks=str(card), evaluation__task_items=2, logging__plots=True, schedule__name="constant")
    rows = go(tiny(**asked), tmp_path / "asked")
    scores = {row["step"]: row["tasks/quiz/accuracy"] for row in rows if "tasks/quiz/accuracy" in row}
    assert list(scores) == [6, 12] and set(scores.values()) <= {0.0, 0.5, 1.0}
    assert (tmp_path / "asked" / "plots" / "task_quiz_accuracy.png").exists()
    assert losses(rows) == losses(read_metrics(plain / "metrics.jsonl"))
