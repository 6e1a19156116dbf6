"""The host adds up the sums of every batch exactly once, and the scores name the set that was scored."""

import jax.numpy as jnp
import numpy as np

from gptjax.config import default
from gptjax.evaluation.perplexity import scores_of_text
from gptjax.evaluation.validation import summed, validate
from gptjax.parallel.mesh import make_mesh


def sums_of(params, batch):
    return {name: jnp.float32(value * params) for name, value in batch.items()}


def test_sums_are_added_over_all_batches():
    batches = [dict(nll=30.0, tokens=10.0), dict(nll=1.0, tokens=1.0), dict(nll=0.5, tokens=2.0)]
    assert summed(sums_of, 2.0, iter(batches)) == dict(nll=63.0, tokens=26.0)
    assert summed(sums_of, 2.0, iter([])) == {}


class TwoBatches:
    """The part of a Dataset that validation uses."""

    def batches(self, start, rows):
        return iter([{"nll": np.full((len(rows), 1), weight, np.float32)} for weight in (1.0, 3.0)])

    def identity(self):
        return "0123456789ab"


def test_scores_name_the_set_that_was_scored():
    def step(params, batch):
        return {"nll": batch["nll"].sum(), "tokens": jnp.float32(batch["nll"].size), "bytes": jnp.float32(0)}

    scored = validate(step, scores_of_text, None, TwoBatches(), make_mesh(default().mesh), 8)
    assert scored["validation/set"] == "0123456789ab"
    assert (scored["validation/loss"], scored["validation/tokens"]) == (2.0, 16)
