"""Settings of a request are checked when they are made."""

import pytest

from gptjax.config import ConfigError
from gptjax.inference.sampling_params import SamplingParams


@pytest.mark.parametrize(
    "settings, message",
    [
        (dict(n=0), "n = 0: must be an integer from 1 to 128"),
        (dict(max_tokens=-1), "max_tokens = -1: must be an integer of at least 0"),
        (dict(max_tokens=3, min_tokens=4), "min_tokens = 4: must be at most max_tokens = 3"),
        (dict(max_tokens=None, min_tokens=2**31), "min_tokens = 2147483648: must be an integer from 0 to 2147483647"),
        (dict(temperature="hot"), "temperature = 'hot': must be 0 .greedy. or a positive number"),
        (dict(temperature=float("nan")), "temperature = nan"),
        (dict(top_p=0), "top_p = 0: must be above 0"),
        (dict(top_k=1.5), "top_k = 1.5"),
        (dict(top_k=True), "top_k = True"),
        (dict(presence_penalty=3), "presence_penalty = 3: must be from -2 to 2"),
        (dict(seed=2**32), "seed = 4294967296"),
        (dict(seed=2**32 - 1, n=2), "seed = 4294967295: must be at most 2.32 - 2"),
        (dict(stop=["a", ""]), "stop = ''"),
        (dict(stop=[1]), r"stop = \[1\]: must be a string or a list of strings"),
        (dict(stop_token_ids=[-1]), "stop_token_ids"),
        (dict(stop_token_ids=range(17)), "stop_token_ids.*at most 16"),
        (dict(logprobs=21), "logprobs = 21: must be an integer from 0 to 20"),
        (dict(logit_bias={5: 101}), "logit_bias.*from -100 to 100"),
        (dict(ignore_eos=1), "ignore_eos = 1: must be true or false"),
    ],
)
def test_an_invalid_setting_is_named_with_its_value_and_what_is_allowed(settings, message):
    with pytest.raises(ConfigError, match=message):
        SamplingParams(**settings)
