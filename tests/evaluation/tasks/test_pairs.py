"""Translation from raw pairs to a score, over the held-out sources with all their references."""

import pytest
from pipeline_running import prepare
from table_answerer import TableAnswerer

from gptjax.corpus.config import default, source, validate
from gptjax.evaluation.requests import Generated
from gptjax.evaluation.tasks import Subject, find_tasks, run_tasks


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    """A folder with 60 sources; every other source has two translations."""
    folder = tmp_path_factory.mktemp("pairs")
    lines = [f"phrase {k} en français\tthe French phrase {k} here\n" for k in range(60)]
    lines += [f"phrase {k} en français\tthe phrase {k} of French words\n" for k in range(0, 60, 2)]
    (folder / "pairs.tsv").write_text("".join(lines))
    config = default()
    config.sources = (source(name="mine", kind="pairs", path=f"{folder}/pairs.tsv"),)
    config.cleaning.update(repair=False, language=False)
    config.duplicates.kind = "exact"
    config.tokenizer.name = "byte"
    config.split.update(validation_fraction=0.1, test_fraction=0.4)
    validate(config)
    prepare(config, folder / "prepared")
    return folder / "prepared"


def test_held_out_pairs_are_a_translation_task(prepared):
    ((task,), _) = find_tasks("translation", [prepared])
    assert {len(item.references) for item in task.items} == {1, 2}
    assert len({item.prompts for item in task.items}) == len(task.items)  # each source is translated once
    assert task.requests(task.items[0]) == [Generated(task.items[0].prompts[0], 128, ())]
    second = {item.prompts[0]: item.references[-1] for item in task.items}
    result = run_tasks([task], TableAnswerer(texts=second), Subject({}), None)["translation"]
    assert result["scores"]["bleu"]["value"] == pytest.approx(100)
    assert "nrefs:var" in result["scores"]["bleu"]["signature"]
