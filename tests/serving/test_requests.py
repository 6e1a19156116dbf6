"""The bodies of requests: what is understood, and how OpenAI words what is wrong."""

import json

import pytest

from gptjax.serving import requests
from gptjax.serving.errors import APIError

CHAT = {"model": "m", "messages": [{"role": "user", "content": "Hi"}]}
TEXT = {"model": "m", "prompt": "Hi"}


def test_a_completion_has_the_defaults_of_openai():
    asked = requests.completion(TEXT, 8)
    assert asked.prompts == ("Hi",) and not asked.stream and not asked.echo
    params = asked.params
    assert (params.max_tokens, params.temperature, params.n, params.logprobs, params.seed) == (16, 1.0, 1, None, None)
    assert requests.chat(CHAT, 8).params.max_tokens is None


@pytest.mark.parametrize(
    ("prompt", "prompts"),
    [
        ("a", ("a",)),
        (["a", "b"], ("a", "b")),
        ([1, 2], ((1, 2),)),
        ([[1], [2, 3]], ((1,), (2, 3))),
    ],
)
def test_a_prompt_is_text_or_token_ids_of_one_or_several(prompt, prompts):
    assert requests.completion(TEXT | {"prompt": prompt}, 8).prompts == prompts


def test_a_content_may_be_a_list_of_text_parts_and_developer_means_system():
    parts = [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]
    messages = [{"role": "developer", "content": "S"}, {"role": "user", "content": parts, "name": "me"}]
    assert requests.chat(CHAT | {"messages": messages}, 8).messages == (("system", "S"), ("user", "ab"))


def test_fields_that_change_no_text_and_neutral_values_are_accepted():
    neutral = dict(user="u", metadata={}, store=False, tools=[], tool_choice="none", response_format={"type": "text"})
    neutral |= dict(service_tier="auto", logit_bias={}, top_k=-1, seed=-1, stop=None, functions=None, n=None)
    assert requests.chat(CHAT | neutral, 8).params.seed == 2**32 - 1
    given = dict(top_k=5, min_p=0.1, repetition_penalty=1.2, stop=["a"], logit_bias={"7": -100}, min_tokens=1)
    params = requests.completion(TEXT | given, 8).params
    assert {name: getattr(params, name) for name in given} == given | {"stop": ("a",), "logit_bias": {7: -100.0}}


REFUSED = [
    ({"model": None}, "you must provide a model parameter", "model", "missing_required_parameter"),
    ({"prompt": None}, "Missing required parameter: 'prompt'.", "prompt", "missing_required_parameter"),
    ({"prompt": [1, "a"]}, "but got an array instead", "prompt", "invalid_type"),
    ({"prompt": []}, "but got an empty array instead", "prompt", "invalid_type"),
    ({"prompt": "\ud800"}, "half of a surrogate pair", "prompt", None),
    (
        {"temperature": "hot"},
        "Invalid type for 'temperature': expected a decimal, but got a string instead.",
        "temperature",
        "invalid_type",
    ),
    ({"temperature": -1}, "Expected a value >= 0, but got -1 instead.", "temperature", "decimal_below_min_value"),
    ({"temperature": True}, "but got a boolean instead", "temperature", "invalid_type"),
    ({"temperature": 10**400}, "above maximum", "temperature", "decimal_above_max_value"),
    ({"top_p": 0}, "must be above 0", "top_p", None),
    ({"max_tokens": 1.5}, "expected an integer, but got a decimal", "max_tokens", "invalid_type"),
    ({"max_tokens": -1}, "integer below minimum value", "max_tokens", "integer_below_min_value"),
    ({"min_tokens": 20}, "min_tokens = 20: must be at most max_tokens = 16", "min_tokens", None),
    ({"min_tokens": 3 * 10**9}, "<= 2147483647, but got 3000000000", "min_tokens", "integer_above_max_value"),
    ({"seed": 2**63}, "<= 9223372036854775807, but got 9223372036854775808", "seed", "integer_above_max_value"),
    ({"top_k": 2**31}, "<= 2147483647", "top_k", "integer_above_max_value"),
    ({"n": 9}, "Expected a value <= 8, but got 9 instead.", "n", "integer_above_max_value"),
    ({"n": 8, "prompt": ["a", "b"]}, "2 prompts with n = 8", "n", None),
    ({"best_of": 3}, "'best_of' is not supported", "best_of", "unsupported_parameter"),
    ({"logprobs": 21}, "<= 20", "logprobs", "integer_above_max_value"),
    ({"logprobs": True}, "expected an integer, but got a boolean", "logprobs", "invalid_type"),
    ({"stop": ["a"] * 17}, "array too long", "stop", "array_above_max_length"),
    ({"stop": [""]}, "each string must have", "stop", None),
    ({"stop_token_ids": [*range(16)]}, "maximum length 15, but got", "stop_token_ids", "array_above_max_length"),
    ({"stop_token_ids": [-1]}, "must be a list of token ids", "stop_token_ids", None),
    ({"stop": [1]}, "an array of strings", "stop", "invalid_type"),
    ({"logit_bias": {"a": 1}}, "token ids with numbers", "logit_bias", "invalid_type"),
    ({"logit_bias": {"1": 101}}, "<= 100", "1", "decimal_above_max_value"),
    ({"suffix": "x"}, "does not insert it", None, None),
    ({"stream": 1}, "expected a boolean, but got an integer", "stream", "invalid_type"),
    ({"stream_options": {}}, "only allowed when 'stream' is enabled", "stream_options", None),
    ({"temperatur": 1}, "Unrecognized request argument supplied: temperatur; did you mean", None, "unknown_parameter"),
]


@pytest.mark.parametrize(("change", "message", "param", "code"), REFUSED, ids=[str(row[0])[:40] for row in REFUSED])
def test_a_wrong_field_of_a_completion_is_named_in_the_words_of_openai(change, message, param, code):
    error = refusal(requests.completion, TEXT | change)
    assert message in error.message and error.status == 400 and error.kind == "invalid_request_error"
    assert param in (None, error.param) and code in (None, error.code)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"messages": None}, "Missing required parameter: 'messages'."),
        ({"messages": []}, "minimum length 1"),
        ({"messages": "Hi"}, "expected an array of objects, but got a string"),
        ({"messages": [{"content": "x"}]}, "'messages[0].role'"),
        ({"messages": [{"role": "user"}]}, "'messages[0].content'"),
        ({"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}, "only parts of type 'text'"),
        ({"messages": [{"role": "user", "content": 5}]}, "'messages[0].content'"),
        ({"messages": [{"role": "assistant", "content": None, "tool_calls": [{}]}]}, "call tools"),
        ({"tools": [{"type": "function"}]}, "has not learned to call tools"),
        ({"response_format": {"type": "json_object"}}, "only plain text is written"),
        ({"top_logprobs": 2}, "only allowed when 'logprobs' is enabled"),
        ({"max_tokens": 1, "max_completion_tokens": 2}, "at the same time"),
        ({"max_completion_tokens": 0}, "integer below minimum value"),
        ({"store": True}, "nothing is stored"),
        ({"echo": True}, "Unrecognized request argument supplied: echo"),
    ],
)
def test_a_wrong_field_of_a_chat_is_refused_in_a_sentence(change, message):
    assert message in refusal(requests.chat, CHAT | change).message


@pytest.mark.parametrize("body", [b"", b"{", b"[" * 100_000, b"\xff{}", b'{"a": NaN}', b'{"a": 1' + b"0" * 5000 + b"}"])
def test_what_is_not_json_is_refused(body):
    with pytest.raises(APIError, match="could not parse the JSON body"):
        requests.parsed_body(body)


def test_json_of_another_type_than_an_object_is_refused():
    with pytest.raises(APIError, match="expected an object, but got an array instead"):
        requests.parsed_body(b"[1]")
    assert requests.parsed_body(json.dumps(TEXT).encode()) == TEXT


def refusal(read, body):
    with pytest.raises(APIError) as caught:
        read({name: value for name, value in body.items()}, 8)
    return caught.value
