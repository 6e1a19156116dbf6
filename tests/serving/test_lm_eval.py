"""lm_eval asks a server over HTTP (local-completions) and gets the log-likelihoods that the model has."""

import types

import numpy as np
import pytest
from random_models import make_model, reference
from served_models import make_served, running

ITEMS = [("ab c", " d"), ("ab c", " ef"), ("", "xyz"), ("q", "rs")]


def test_lm_eval_over_http_gives_the_log_likelihoods_of_the_model():
    completions = pytest.importorskip("lm_eval.models.openai_completions")
    served = make_served(template=None)
    tokenizer, begin = served.generator.tokenizer, served.generator.begin_id
    with running(served) as (address, _):
        model = completions.LocalCompletionsAPI(
            base_url=f"{address}/v1/completions", model="tiny", tokenizer_backend="remote", max_length=47, batch_size=2
        )
        asked = [types.SimpleNamespace(args=item) for item in ITEMS]
        found = model.loglikelihood(asked, disable_tqdm=True)
    served.engine.close(drain=False)
    params, config = make_model()
    for (context, text), (nats, is_greedy) in zip(ITEMS, found):
        before = [begin, *tokenizer.encode(context)]
        wanted, greedy = reference(params, config, [*before, *tokenizer.encode(text)], len(before))
        np.testing.assert_allclose(nats, wanted, atol=1e-3)
        assert is_greedy == greedy
