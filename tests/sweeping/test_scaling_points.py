"""The runs of a sweep are read as points: finished ones, from the files that the sweep itself writes."""

import pytest

from gptjax.errors import ConfigError
from gptjax.sweeping.scaling_points import read_curves, read_final
from gptjax.training.records.writers import MetricsWriter

HEAD = "run,state,model.width,parameters,tokens,flops,step,validation/loss\n"
FINISHED = '"a,b=1",finished,16,11600,2000,1.2e8,20,2.5\n'


def sweep(folder, *rows):
    folder.mkdir(exist_ok=True)
    (folder / "results.csv").write_text("".join((HEAD, *rows)))
    return folder


def test_final_losses_and_curves_of_the_finished_runs_of_two_sweeps(tmp_path):
    first = sweep(tmp_path / "one", FINISHED, "c,failed,16,11600,1000,6e7,10,9.9\n")
    second = sweep(tmp_path / "two", "d,finished,32,30000,4000,4.8e8,40,2.25\n")
    points = read_final([first, second / "results.csv"])
    assert points.parameters.tolist() == [10_000, 20_000]  # a sixth of the FLOPs per token
    assert points.flops.tolist() == [1.2e8, 4.8e8] and points.losses.tolist() == [2.5, 2.25]
    assert read_final([first], "total").parameters.tolist() == [11_600]

    with MetricsWriter(first / "a,b=1", tensorboard=False) as writer:
        for step, loss in ((10, 3.0), (15, None), (20, 2.5)):
            writer.write(step, {"tokens": 100 * step, **({"validation/loss": loss} if loss else {})})
    curves = read_curves([first])
    assert (curves.tokens.tolist(), curves.losses.tolist()) == ([1000, 2000], [3.0, 2.5])
    assert curves.runs.tolist() == [0, 0] and curves.final().losses.tolist() == [2.5]
    with pytest.raises(ConfigError, match=r"two/d/metrics\.jsonl does not exist"):
        read_curves([second])


def test_what_is_no_finished_sweep_is_refused(tmp_path):
    with pytest.raises(ConfigError, match=r"results\.csv does not exist: expected the folder of a sweep"):
        read_final([tmp_path])
    with pytest.raises(ConfigError, match="no run has finished"):
        read_final([sweep(tmp_path)])
    with pytest.raises(ConfigError, match="counts = all: expected one of compute, total"):
        read_final([sweep(tmp_path, FINISHED)], "all")
    (tmp_path / "results.csv").write_text("run,state\n")
    with pytest.raises(ConfigError, match="has no column flops"):
        read_final([tmp_path])
