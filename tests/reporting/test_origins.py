"""A run that started from another: what that run records of itself, or that it cannot be read."""

import shutil

from reported_runs import write_run

from gptjax.reporting.facts import gather
from gptjax.reporting.markdown import markdown
from gptjax.reporting.sections import report_of


def test_the_run_that_it_started_from_is_described_or_said_to_be_gone(run, tmp_path):
    base, tuned = tmp_path / "base", tmp_path / "tuned"
    shutil.copytree(run, base)
    write_run(tuned, tmp_path / "data", objective="instruction", checkpoint=False, init_from=str(base))
    text = markdown(report_of(gather(tuned), "").sections)
    assert "**the run that it started from: base**" in text and "| base | 60 | 6k |" in text
    assert "not the runs that it started or learned from" in text
    shutil.rmtree(base)
    text = markdown(report_of(gather(tuned), "").sections)
    assert "The folder of base, the run that it started from, cannot be read here any more." in text
