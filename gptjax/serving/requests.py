"""Requests for texts: the body of each kind of request as what is asked of the engine.

The fields are OpenAI's (see `fields`); vLLM's further fields for drawing tokens are understood as well.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from typing import Any

from gptjax.inference.sampling_params import SamplingParams
from gptjax.serving.errors import invalid
from gptjax.serving.fields import Fields, type_name

NOT_JSON = (
    "We could not parse the JSON body of your request. (HINT: This likely means you aren't using your HTTP library "
    "correctly. The OpenAI API expects a JSON payload, but what was sent was not valid JSON.)"
)
MOST_LOGPROBS = 20


@dataclasses.dataclass(frozen=True)
class Asked:
    """A request, checked as far as this is possible without a model.

    Attributes:
      model: its name.
      chat: whether it is for /v1/chat/completions.
      prompts: of completions: texts, or lists of token ids.
      messages: of chats: (role, content) of each.
      params: how texts are drawn, and where they end; each choice of a prompt uses the next seed.
      limit_field: the name of the field that params.max_tokens came from.
      add_special_tokens: whether a prompt is the beginning of a document.
    """

    model: str
    chat: bool
    prompts: tuple[str | tuple[int, ...], ...]
    messages: tuple[tuple[str, str], ...]
    params: SamplingParams
    echo: bool
    stream: bool
    include_usage: bool
    limit_field: str = "max_tokens"
    add_special_tokens: bool = True


def parsed_body(body: bytes) -> dict[str, Any]:
    """The JSON object of a body. Raises APIError for anything else."""

    def no_constant(name: str) -> Any:
        raise ValueError(name)  # NaN and Infinity are not JSON

    try:
        value = json.loads(body.decode("utf-8"), parse_constant=no_constant)
    except (ValueError, RecursionError):
        raise invalid(NOT_JSON) from None
    if not isinstance(value, dict):
        raise invalid(f"Invalid type for the request body: expected an object, but got {type_name(value)} instead.")
    return value


def completion(body: Mapping[str, Any], most_choices: int) -> Asked:
    """The request of a body for /v1/completions. Raises APIError."""
    fields = Fields(body)
    model = fields.model()
    prompts = fields.prompts("prompt")
    n = fields.integer("n", 1, 1, most_choices)
    if fields.integer("best_of", n, 1) != n:
        raise fields.refusal("best_of", f"choices are not compared, so it must be n = {n} or be left out")
    top = fields.integer("logprobs", -1, 0, MOST_LOGPROBS)
    logprobs = None if top < 0 else top
    echo = fields.flag("echo")
    asked = Asked(
        model=model,
        chat=False,
        prompts=prompts,
        messages=(),
        params=fields.params(
            n=n,
            max_tokens=fields.integer("max_tokens", 16, 0),
            logprobs=logprobs,
            prompt_logprobs=logprobs if echo else None,
        ),
        echo=echo,
        add_special_tokens=fields.flag("add_special_tokens", True),
        **fields.streamed(),
    )
    if len(prompts) * n > most_choices:
        raise invalid(f"{len(prompts)} prompts with n = {n}: at most {most_choices} texts are written at a time.", "n")
    fields.check_rest()
    return asked


def chat(body: Mapping[str, Any], most_choices: int) -> Asked:
    """The request of a body for /v1/chat/completions. Raises APIError."""
    fields = Fields(body)
    model = fields.model()
    messages = fields.messages("messages")
    wanted, top = fields.flag("logprobs"), fields.integer("top_logprobs", -1, 0, MOST_LOGPROBS)
    if top >= 0 and not wanted:
        raise invalid("The 'top_logprobs' parameter is only allowed when 'logprobs' is enabled.", "top_logprobs")
    old, new = fields.integer("max_tokens", -1, 1), fields.integer("max_completion_tokens", -1, 1)
    if old > 0 and new > 0 and old != new:
        raise invalid(
            "Setting 'max_tokens' and 'max_completion_tokens' at the same time is not supported.", "max_tokens"
        )
    asked = Asked(
        model=model,
        chat=True,
        prompts=(),
        messages=messages,
        params=fields.params(
            n=fields.integer("n", 1, 1, most_choices),
            max_tokens=new if new > 0 else old if old > 0 else None,
            logprobs=max(top, 0) if wanted else None,
        ),
        echo=False,
        limit_field="max_completion_tokens" if new > 0 else "max_tokens",
        **fields.streamed(),
    )
    fields.check_rest()
    return asked
