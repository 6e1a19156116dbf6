"""Results are averaged over seeds, ranked, compared by Welch's t-test, and plotted with their spread."""

import csv
import json
import math

import matplotlib.image
import numpy as np
import pytest
from rich.console import Console

from gptjax.sweeping.algebra import grid, named, over, seeds
from gptjax.sweeping.figures import draw
from gptjax.sweeping.gather import by_data, group_by_seed, p_value, plan_table, results_table, write_results
from gptjax.sweeping.predict import Forecast, size_of
from gptjax.sweeping.runs import State, Status
from gptjax.training.records.writers import MetricsWriter

LOSS = "validation/loss"
RATE = "optimizer.learning_rate"


@pytest.fixture
def found(plan):
    """Three rates with three seeds each: losses around 3, 2 and 4; one run of the last rate failed."""
    runs = plan(grid(over(RATE, [0.1, 0.2, 0.4]), seeds(3)))
    statuses = {}
    for run in runs:
        loss = {0.1: 3.0, 0.2: 2.0, 0.4: 4.0}[run.point.settings[RATE]] + run.point.settings["seed"] / 10
        rows = [{"step": 10, LOSS: loss - 0.5, "tokens": 640}, {"step": 20, LOSS: loss, "tokens": 1280}]
        statuses[run.name] = Status(State.FINISHED, 20, rows)
        with MetricsWriter(run.workdir, tensorboard=False) as writer:
            for row in rows:
                writer.write(row["step"], {LOSS: row[LOSS]})
    last = runs[-1].name
    statuses[last] = Status(State.FAILED, 7, [{"step": 7, "train/loss": math.nan}])
    return runs, statuses


def text_of(table):
    console = Console(width=140, highlight=False)
    with console.capture() as capture:
        console.print(table)
    return capture.get()


def test_runs_of_a_group_differ_only_by_seed_and_finished_ones_are_counted(found):
    groups = group_by_seed(*found, LOSS)
    assert [group.name for group in groups] == ["learning_rate=0.1", "learning_rate=0.2", "learning_rate=0.4"]
    np.testing.assert_allclose(groups[1].values, [2.0, 2.1, 2.2])
    assert groups[1].mean == pytest.approx(2.1) and groups[1].deviation == pytest.approx(0.1)
    assert len(groups[2].values) == 2 and len(groups[2].runs) == 3


def test_a_sweep_over_only_seeds_is_one_group(plan):
    runs = plan(seeds(3))
    (group,) = group_by_seed(runs, {run.name: Status(State.NOT_STARTED) for run in runs}, LOSS)
    assert (group.name, group.values, group.settings) == ("base", (), {}) and math.isnan(group.mean)


def test_named_points_keep_their_names_in_groups(plan):
    runs = plan(grid(named({"a": {RATE: 0.1}, "b": {RATE: 0.1}}), seeds(2)))
    groups = group_by_seed(runs, {run.name: Status(State.NOT_STARTED) for run in runs}, LOSS)
    assert [(group.name, len(group.runs)) for group in groups] == [("a", 2), ("b", 2)]


def test_the_p_value_is_that_of_welchs_test():
    a, b = [2.1, 2.2, 2.15], [2.6, 2.0, 2.9, 2.3, 2.7]  # Student's test would give 0.15, not 0.09
    errors = [np.var(a, ddof=1) / 3, np.var(b, ddof=1) / 5]
    t = (np.mean(a) - np.mean(b)) / math.sqrt(sum(errors))
    freedom = sum(errors) ** 2 / (errors[0] ** 2 / 2 + errors[1] ** 2 / 4)
    rng = np.random.default_rng(0)
    simulated = np.mean(np.abs(rng.standard_t(freedom, 400_000)) > abs(t))
    assert p_value(a, b) == pytest.approx(simulated, rel=0.05) and p_value(a, b) == p_value(b, a)
    assert math.isnan(p_value(a, [1.0]))


def test_the_table_ranks_groups_and_compares_them_with_the_best(found):
    text = text_of(results_table(group_by_seed(*found, LOSS), LOSS))
    places = [text.index(f"learning_rate={rate}") for rate in (0.2, 0.1, 0.4)]
    assert places == sorted(places)
    assert "2.1000" in text and "0.1000" in text and "+1.0000" in text and "2/3" in text
    groups = group_by_seed(*found, LOSS)
    assert format(p_value(groups[0].values, groups[1].values), ".2g") in text


def test_losses_on_different_windows_are_not_compared(found, tmp_path):
    runs, statuses = found
    for run in runs[:6]:  # the rates 0.1 and 0.2: two seeds of each on one set, one on another
        data = "other" if run.point.settings["seed"] == 2 else "same"
        rows = [row | {"validation/set": data} for row in statuses[run.name].rows]
        rows[0] |= {LOSS: 0.1, "validation/set": "earlier"}
        statuses[run.name] = Status(State.FINISHED, 20, rows)
    groups = group_by_seed(runs, statuses, LOSS)
    kinds = by_data(groups)
    values = {data: [list(group.values) for group in alike] for data, alike in kinds.items()}
    assert values == {"same": [[3.0, 3.1], [2.0, 2.1]], "other": [[3.2], [2.2]], "": [[4.0, 4.1]]}
    text = text_of(results_table(groups, LOSS))
    assert "measured on different data (same, other, not recorded)" in text
    assert text.count("+1.0000") == 2 and text.count(format(p_value([3.0, 3.1], [2.0, 2.1]), ".2g")) == 1
    write_results(tmp_path / "results.csv", runs, statuses, {run.name: size_of(run) for run in runs}, LOSS)
    rows = list(csv.DictReader((tmp_path / "results.csv").read_text().splitlines()))
    assert [row["measured on"] for row in rows[:4]] == ["same", "same", "other", "same"]
    assert rows[0][f"best {LOSS}"] == "3.0"


def test_training_losses_are_compared_only_on_the_same_data(plan):
    runs = plan(seeds(2))
    for run, data in zip(runs, ("a", "b")):
        run.workdir.mkdir()
        rows = [{"step": 0, "data": "old"}, {"step": 5, "data": data}]
        (run.workdir / "history.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    statuses = {run.name: Status(State.FINISHED, 9, [{"step": 9, "train/loss": 1.0, "mfu": 0.5}]) for run in runs}
    assert list(by_data(group_by_seed(runs, statuses, "train/loss"))) == ["a", "b"]
    assert len(group_by_seed(runs, statuses, "mfu")) == 1


def test_the_csv_has_the_settings_and_figures_of_every_run(found, tmp_path):
    runs, statuses = found
    sizes = {run.name: size_of(run) for run in runs}
    write_results(tmp_path / "results.csv", runs, statuses, sizes, LOSS)
    rows = list(csv.DictReader((tmp_path / "results.csv").read_text().splitlines()))
    assert [row["run"] for row in rows] == [run.name for run in runs]
    assert rows[4] | {RATE: "0.2", "seed": "1", "state": "finished", LOSS: "2.1", f"best {LOSS}": "1.6"} == rows[4]
    assert int(rows[4]["parameters"]) == sizes[runs[4].name].parameters and rows[4]["step"] == "20"
    assert rows[-1]["state"] == "failed" and rows[-1][LOSS] == "" and rows[-1]["train/loss"] == "nan"


def test_the_plan_sums_the_remaining_time(found):
    runs, statuses = found
    sizes = {run.name: size_of(run) for run in runs}
    statuses[runs[0].name] = Status(State.PARTLY_DONE, 10)
    text = text_of(plan_table(runs, statuses, sizes, Forecast(sizes, size_of(runs[0]).flops / 100), jobs=2))
    assert "partly done 50%" in text and "2 left" in text
    left, of_all = text.splitlines()[-3:-1]
    assert "0:58" in left  # (100 s · 10/20 + 100 s · 13/20) / 2 jobs
    assert "in all" in of_all and "7:30" in of_all  # 9 runs of 100 s / 2 jobs
    unknown = text_of(plan_table(runs, statuses, sizes, Forecast(sizes), jobs=1))
    assert "n/a" in unknown.splitlines()[-2]


@pytest.mark.parametrize("x, pictures", [("", 1), (RATE, 2)])
def test_plots_are_written(found, tmp_path, x, pictures):
    paths = draw(group_by_seed(*found, LOSS), LOSS, x, tmp_path / "plots")
    assert len(paths) == pictures
    for path in paths:
        ink = (matplotlib.image.imread(path)[..., :3].min(axis=2) < 0.9).mean()
        assert 0.005 < ink < 0.5 and path.stat().st_size < 100_000


def test_without_finished_runs_there_are_no_plots(plan, tmp_path):
    runs = plan(seeds(2))
    assert draw(group_by_seed(runs, {run.name: Status(State.FAILED) for run in runs}, LOSS), LOSS, "", tmp_path) == []


def test_a_plot_over_a_field_needs_a_finished_run_that_has_it(found, tmp_path):
    runs, statuses = found
    groups = group_by_seed(runs, statuses, LOSS)
    assert [path.name for path in draw(groups, LOSS, "model.width", tmp_path)] == ["loss_by_step.png"]
    diverged = {run.name: Status(State.FINISHED, 20, [{"step": 20, LOSS: math.nan}]) for run in runs}
    assert draw(group_by_seed(runs, diverged, LOSS), LOSS, RATE, tmp_path) == []
