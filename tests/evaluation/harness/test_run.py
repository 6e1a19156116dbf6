"""lm_eval's scores of a random model equal those of the project's tasks, item by item, for each kind of task."""

import json
import math
import random
import string

import numpy as np
import pytest
from random_models import MAX_POSITIONS, TOKENIZER, logits_of, make_model
from table_answerer import TableAnswerer, write_task

from gptjax.evaluation import harness
from gptjax.evaluation.answering import ModelAnswerer
from gptjax.evaluation.requests import Generated
from gptjax.evaluation.tasks import Subject, find_tasks, run_tasks

pytest.importorskip("lm_eval", reason="needs pip install 'gptjax[eval]'")

ITEMS = 24
draw = random.Random(0)


def words(count):
    """ASCII words, so that lm_eval's division by characters equals the division by bytes."""
    letters = string.ascii_lowercase
    return " ".join("".join(draw.choices(letters, k=draw.randint(1, 5))) for _ in range(count))


@pytest.fixture(scope="module")
def answerer():
    params, config = make_model()
    return ModelAnswerer(params, config, TOKENIZER)


@pytest.fixture(scope="module", autouse=True)
def own_cache(tmp_path_factory):
    """By default, the library `datasets` would keep copies of files in the home folder."""
    from gptjax.evaluation.harness.library import lm_eval

    lm_eval()
    import datasets

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path_factory.mktemp("cache"))
        yield


def write_yaml(folder, name, text):
    source = f"{{test: {name}.jsonl}}"
    path = folder / f"{name}.yaml"
    head = f"task: {name}\ndataset_path: json\ndataset_kwargs:\n  data_files: {source}\ntest_split: test\n"
    path.write_text(head + text)
    return path


def multiple_choice(folder, answerer):
    rows = [
        {"q": words(3), "choices": [words(draw.randint(1, 3)) for _ in range(4)], "gold": k % 4} for k in range(ITEMS)
    ]
    few = "".join(f"Q: {row['q']}\\nA: {row['choices'][row['gold']]}\\n\\n" for row in rows[:1])
    card = 'kind = "multiple_choice"\nchoices = ["{choices}"]\nanswer = "{gold}"\n'
    card += f'prompt = "{few}Q: {{q}}\\nA:"\n'
    text = f"""output_type: multiple_choice
doc_to_text: "{few}Q: {{{{q}}}}\\nA:"
doc_to_choice: choices
doc_to_target: gold
metric_list:
  - metric: acc
  - metric: acc_norm
"""
    return rows, card, text, {"acc": "accuracy", "acc_norm": "accuracy_per_byte"}


def continuation(folder, answerer):
    """Half of the continuations are the model's own, so that some answers are correct."""
    rows = [{"before": words(4)[:9] + "x", "last": words(1)} for _ in range(ITEMS)]
    asked = [Generated(row["before"], 3, ()) for row in rows]
    for index, written in answerer.generate(asked):
        if index % 2 and written.text.isascii() and written.text.strip() == written.text and written.text:
            rows[index] |= {"last": written.text}
    card = """
kind = "continuation"
prompt = "{before}"
continuation = "{last}"
delimiter = ""
strip = false
"""
    text = """output_type: loglikelihood
doc_to_text: "{{before}}"
doc_to_target: "{{last}}"
target_delimiter: ""
metric_list:
  - metric: acc
  - metric: perplexity
"""
    return rows, card, text, {"acc": "accuracy", "perplexity": "perplexity"}


def generation(folder, answerer):
    """Half of the references are the model's own texts."""
    rows = [{"q": words(4)[:9] + "x", "answer": words(1)} for _ in range(ITEMS)]
    for index, written in answerer.generate([Generated(row["q"] + ":", 3, ("e", "\n")) for row in rows]):
        if index % 2:
            rows[index]["answer"] = written.text.strip() or "nothing"
    card = """
kind = "generation"
prompt = "{q}:"
references = ["{answer}"]
max_new_tokens = 3
stop = ["e", "\\n"]
metrics = ["exact_match"]
"""
    text = """output_type: generate_until
doc_to_text: "{{q}}:"
doc_to_target: "{{answer}}"
generation_kwargs: {until: ["e", "\\n"], max_gen_toks: 3, temperature: 0.0}
filter_list:
  - {name: none, filter: [{function: remove_whitespace}, {function: take_first}]}
metric_list:
  - metric: exact_match
"""
    return rows, card, text, {"exact_match": "exact_match"}


@pytest.mark.parametrize("kind", [multiple_choice, continuation, generation])
def test_scores_equal_those_of_the_projects_tasks(kind, answerer, tmp_path):
    rows, card, text, metrics = kind(tmp_path, answerer)
    path = write_task(tmp_path, card, rows)
    tasks, _ = find_tasks(str(path))
    ours = run_tasks(tasks, answerer, Subject({}), tmp_path)["quiz"]
    loaded = harness.load_tasks(str(write_yaml(tmp_path, "quiz", text)))
    theirs = harness.run_harness(loaded, answerer, {}, tmp_path)["quiz"]
    assert theirs["items"] == ours["items"] == ITEMS
    cut = [note for note in loaded.notes if note.endswith("longer than the context, cut at the beginning")]
    assert len(cut) == (ours["truncated"] > 0) and (cut or kind is not multiple_choice)
    for name, own in metrics.items():
        for key in ("value", "standard_error"):
            if (name, key) != ("perplexity", "standard_error"):  # lm_eval uses a bootstrap
                assert theirs["scores"][name][key] == pytest.approx(ours["scores"][own][key], rel=1e-12), name
    samples = [json.loads(line) for line in (tmp_path / "harness" / "items" / "quiz.jsonl").read_text().splitlines()]
    records = [json.loads(line) for line in (tmp_path / "items" / "quiz.jsonl").read_text().splitlines()][1:]
    for sample, record in zip(samples, records, strict=True):
        for name, own in metrics.items():
            assert sample[name] == (record["nats"] if own == "perplexity" else record[own])
    values = [record[own] for record in records for own in metrics.values() if own != "perplexity"]
    assert 0 < np.mean(values) < 1, "items must differ for a meaningful test"


def test_documents_are_read_in_the_windows_of_lm_eval_and_scored_per_byte(answerer, tmp_path):
    """In a document longer than the context, every token is scored once: a whole context of tokens after a single
    token, and the last tokens after as many as fit."""
    (tmp_path / "page.jsonl").write_text("".join(json.dumps({"page": words(count)}) + "\n" for count in (3, 45, 0)))
    text = "output_type: loglikelihood_rolling\ndoc_to_text: ''\ndoc_to_target: '{{page}}'\n"
    loaded = harness.load_tasks(str(write_yaml(tmp_path, "page", text + "metric_list: [{metric: bits_per_byte}]\n")))
    found = harness.run_harness(loaded, answerer, {}, tmp_path)["page"]
    pages = [json.loads(line)["page"] for line in (tmp_path / "page.jsonl").read_text().splitlines()]
    nats, (params, config) = 0.0, make_model()
    for page in pages:
        tokens, done = [TOKENIZER.eos_id, *TOKENIZER.encode(page)], 1
        while done < len(tokens):
            end = min(len(tokens), done + MAX_POSITIONS)
            start = max(0, end - MAX_POSITIONS - 1)
            logits = np.asarray(logits_of(params, config, tokens[start : end - 1]))[done - start - 1 :]
            logprobs = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
            nats += np.take_along_axis(logprobs, np.array(tokens[done:end])[:, None], -1).sum()
            done = end
    expected = -nats / np.log(2) / sum(map(len, pages))
    assert found["scores"]["bits_per_byte"]["value"] == pytest.approx(expected, rel=1e-4)


def test_a_resumed_evaluation_computes_only_missing_answers(tmp_path):
    rows, _, text, _ = multiple_choice(tmp_path, None)
    (tmp_path / "quiz.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    path = str(write_yaml(tmp_path, "quiz", text))
    whole = harness.run_harness(harness.load_tasks(path), TableAnswerer(), {"step": 1}, tmp_path / "whole")
    killed = TableAnswerer(stop_after=31)
    with pytest.raises(KeyboardInterrupt):
        harness.run_harness(harness.load_tasks(path), killed, {"step": 1}, tmp_path / "killed")
    rest = TableAnswerer()
    found = harness.run_harness(harness.load_tasks(path), rest, {"step": 1}, tmp_path / "killed")
    assert found == whole and len(rest.asked) == 4 * ITEMS - 31
    other = TableAnswerer()
    harness.run_harness(harness.load_tasks(path), other, {"step": 2}, tmp_path / "killed")
    assert len(other.asked) == 4 * ITEMS, "answers of another model were used"


def test_infinite_log_likelihoods_are_read_back(tmp_path):
    """JSON has no infinite numbers, but a log-likelihood may be infinite."""
    rows, _, text, _ = multiple_choice(tmp_path, None)
    rows = [row | {"choices": ["yes", "no"], "gold": 0} for row in rows[:2]]
    (tmp_path / "quiz.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    impossible = TableAnswerer(nats={("", "yes"): -math.inf, ("", "no"): -1.0})
    path = str(write_yaml(tmp_path, "quiz", text))
    first = harness.run_harness(harness.load_tasks(path), impossible, {}, tmp_path)
    again = harness.run_harness(harness.load_tasks(path), TableAnswerer(stop_after=0), {}, tmp_path)
    assert first == again and first["quiz"]["scores"]["acc"]["value"] == 0
    for file in (tmp_path / "harness").rglob("*.jsonl"):
        for line in file.read_text().splitlines():
            json.loads(line, parse_constant=pytest.fail)
