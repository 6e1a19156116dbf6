"""Tasks while a model trains: of each kind, the scores of the state's parameters, as the command finds them."""

import jax
import jax.numpy as jnp
import pytest
from random_models import TOKENIZER, make_model
from table_answerer import CHOICES, choice_rows, write_task

from gptjax import config as configs
from gptjax.evaluation.answering import ModelAnswerer
from gptjax.evaluation.requests import Generated
from gptjax.evaluation.tasks import Subject, find_tasks, run_tasks
from gptjax.evaluation.tasks.in_training import make_task_evaluation
from gptjax.training.state import TrainState

CONTINUATION = 'kind = "continuation"\nprompt = "{question}"\ncontinuation = "{choices[0]}"\n'
GENERATION = """
kind = "generation"
prompt = "{question}"
references = ["{choices[0]}"]
max_new_tokens = 3
metrics = ["exact_match", "chrf"]
"""


@pytest.mark.parametrize(
    ("card", "family", "objective"),
    [
        (CHOICES, "decoder", "next_token"),
        (CONTINUATION, "decoder", "next_token"),
        (GENERATION, "decoder", "next_token"),
        (GENERATION, "decoder", "completion"),
        (GENERATION, "encoder_decoder", "seq2seq"),
    ],
)
def test_scores_are_those_of_the_moving_average(card, family, objective, tmp_path):
    params, small = make_model(family=family, num_layers=1)
    config = configs.default()
    config.model.update(dict(small.model.items()))
    config.data.path = str(tmp_path)
    config.training.objective = objective
    answerer = ModelAnswerer(params, configs.freeze(config), TOKENIZER, TOKENIZER.eos_id)
    rows = choice_rows(4)
    if card == GENERATION:  # the right answers are what the moving average writes
        for index, written in answerer.generate([Generated(row["question"], 3, ()) for row in rows]):
            rows[index]["choices"][0] = written.text
    path = str(write_task(tmp_path, card, rows))
    config.evaluation.update(tasks=path, task_items=3)
    config = configs.freeze(config)
    ask = make_task_evaluation(config, TOKENIZER, None, TOKENIZER.eos_id)
    nothing = jax.tree.map(jnp.zeros_like, params)
    state = TrainState(step=jnp.int32(1), params=nothing, opt_state=(), ema=params, monitor={})
    with jax.set_mesh(jax.make_mesh((1,), ("data",))):  # as training runs in one
        found = ask(state)
    tasks, _ = find_tasks(path, limit=3)
    scores = run_tasks(tasks, answerer, Subject({}), None)["quiz"]["scores"]
    assert found == {f"tasks/quiz/{metric}": pytest.approx(score["value"]) for metric, score in scores.items()}
    assert any(found.values())
