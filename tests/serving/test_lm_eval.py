"""lm_eval asks a server over HTTP (local-completions), and scores the model as `gptjax evaluate` does."""

import json
import types

import numpy as np
import pytest
from random_models import TOKENIZER, make_model
from served_models import make_served, running
from table_answerer import CHOICES, write_task

from gptjax.evaluation.answering import ModelAnswerer
from gptjax.evaluation.requests import Scored
from gptjax.evaluation.tasks import Subject, find_tasks, run_tasks

ITEMS = [("ab c", " d"), ("ab c", " ef"), ("", "xyz"), ("q", "rs")]
QUIZ = """task: quiz
dataset_path: json
dataset_kwargs:
  data_files: {test: quiz.jsonl}
test_split: test
output_type: multiple_choice
doc_to_text: "Question: {{question}}\\nAnswer:"
doc_to_choice: choices
doc_to_target: gold
metric_list:
  - metric: acc
  - metric: acc_norm
"""


def test_lm_eval_over_http_gives_the_scores_that_evaluate_gives(tmp_path, monkeypatch):
    pytest.importorskip("lm_eval", reason="needs pip install 'gptjax[eval]'")
    from gptjax.evaluation import harness
    from gptjax.evaluation.harness.library import lm_eval

    library = lm_eval()
    import datasets
    from lm_eval.models import openai_completions

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    draw = np.random.default_rng(0)
    rows = []
    for number in range(16):
        choices = ["".join(map(chr, draw.integers(97, 123, draw.integers(1, 6)))) for _ in range(3)]
        rows.append({"question": f"q{number}", "choices": choices, "gold": number % 3})
    path = write_task(tmp_path, CHOICES, rows)
    (tmp_path / "quiz.yaml").write_text(QUIZ)
    answerer = ModelAnswerer(*make_model(), TOKENIZER)
    ours = run_tasks(find_tasks(str(path))[0], answerer, Subject({}), tmp_path)["quiz"]["scores"]
    tasks = harness.load_tasks(str(tmp_path / "quiz.yaml")).tasks

    served = make_served(template=None)
    with running(served) as (address, _):
        model = openai_completions.LocalCompletionsAPI(
            base_url=f"{address}/v1/completions", model="tiny", tokenizer_backend="remote", max_length=47, batch_size=2
        )
        found = library.evaluate(lm=model, task_dict=tasks, bootstrap_iters=0, log_samples=True)
        asked = [types.SimpleNamespace(args=item) for item in ITEMS]
        answers = model.loglikelihood(asked, disable_tqdm=True)
    served.engine.close(drain=False)

    for theirs, own in {"acc": "accuracy", "acc_norm": "accuracy_per_byte"}.items():
        assert found["results"]["quiz"][f"{theirs},none"] == pytest.approx(ours[own]["value"], rel=1e-12)
        assert 0 < ours[own]["value"] < 1
    records = [json.loads(line) for line in (tmp_path / "items" / "quiz.jsonl").read_text().splitlines()][1:]
    samples = sorted(found["samples"]["quiz"], key=lambda sample: sample["doc_id"])
    for sample, record in zip(samples, records, strict=True):
        assert sample["acc"] == record["accuracy"] and sample["acc_norm"] == record["accuracy_per_byte"]
    wanted = dict(answerer.score([Scored(*item) for item in ITEMS]))
    for number, (nats, is_greedy) in enumerate(answers):  # also of an empty context
        np.testing.assert_allclose(nats, wanted[number].nats, atol=1e-3)
        assert is_greedy == wanted[number].greedy
