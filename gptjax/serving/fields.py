"""The fields of a request's body, each read with the type and the range that it must have.

A mistake is reported in OpenAI's words. A field that OpenAI's clients send and that changes no text is accepted
(`user`, `metadata`, …). A field whose meaning would be lost (`tools`, `response_format` of another type, …) is refused
in a sentence, and so is a name that is not known.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from gptjax.config import ConfigError, suggestion
from gptjax.inference.sampling_params import MOST_STOP_TOKENS, SamplingParams
from gptjax.serving.errors import APIError, invalid, wrong_setting

MOST_STOPS = 16
LONGEST_STOP = 1000  # characters
UNSUPPORTED = "unsupported_parameter"  # OpenAI's code of such an error
# Fields of OpenAI's clients that change no text here.
NO_EFFECT = frozenset(
    ("user", "metadata", "service_tier", "safety_identifier", "prompt_cache_key", "prompt_cache_retention")
)
# Fields whose meaning would be lost → (the values that mean nothing, why others are refused).
REFUSED: dict[str, tuple[tuple[Any, ...], str]] = {
    "tools": (([],), "the model has not learned to call tools"),
    "tool_choice": (("none", "auto"), "the model has not learned to call tools"),
    "parallel_tool_calls": ((True, False), "the model has not learned to call tools"),
    "functions": (([],), "the model has not learned to call functions"),
    "function_call": (("none", "auto"), "the model has not learned to call functions"),
    "response_format": (({"type": "text"},), "only plain text is written"),
    "modalities": ((["text"],), "only text is read and written"),
    "audio": ((), "only text is read and written"),
    "prediction": ((), "predicted outputs are not used"),
    "web_search_options": ((), "the server has no access to the web"),
    "reasoning_effort": ((), "the model does not reason apart from its answer"),
    "verbosity": ((), "the length of answers cannot be chosen this way; max_completion_tokens limits it"),
    "store": ((False,), "nothing is stored"),
    "suffix": (("",), "the model continues text and does not insert it"),
    "guided_json": ((), "only plain text is written"),
    "structured_outputs": ((), "only plain text is written"),
}


class Fields:
    """The fields of a body; each is taken once, and what is left at the end is not known."""

    def __init__(self, body: Mapping[str, Any]):
        self._left = dict(body)
        self._known: list[str] = []

    def take(self, name: str) -> Any:
        """The value, or None if the field is missing or null."""
        self._known.append(name)
        return self._left.pop(name, None)

    def has(self, name: str) -> bool:
        return self._left.get(name) is not None

    def text(self, name: str) -> str:
        """A text that must be given."""
        value = self.take(name)
        if value is None:
            raise missing(name)
        if not isinstance(value, str):
            raise wrong_type(name, "a string", value)
        return valid_text(name, value)

    def model(self) -> str:
        if self._left.get("model") is None:
            raise invalid("you must provide a model parameter", "model", "missing_required_parameter")
        return self.text("model")

    def flag(self, name: str, default: bool = False) -> bool:
        value = self.take(name)
        if value is not None and not isinstance(value, bool):
            raise wrong_type(name, "a boolean", value)
        return default if value is None else value

    def integer(self, name: str, default: int, low: int, high: int | None = None) -> int:
        value = self.take(name)
        if value is None:
            return default
        if isinstance(value, bool) or not isinstance(value, int):
            raise wrong_type(name, "an integer", value)
        return _in_range(name, value, low, high, "integer")

    def decimal(self, name: str, default: float, low: float, high: float) -> float:
        value = self.take(name)
        if value is None:
            return default
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise wrong_type(name, "a decimal", value)
        _in_range(name, value, low, high, "decimal")  # a huge integer is no float
        return float(value)

    def streamed(self) -> dict[str, Any]:
        stream = self.flag("stream")
        return {"stream": stream, "include_usage": self._include_usage(stream)}

    def params(self, n: int, **given: Any) -> SamplingParams:
        """The settings of the texts, with vLLM's names. given: those that the two kinds of requests name otherwise."""
        fields: dict[str, Any] = dict(
            temperature=self.decimal("temperature", 1.0, 0, 1e30),
            top_p=self._above_zero("top_p", 1.0, 1.0),
            top_k=self.integer("top_k", 0, -1, 2**31 - 1),
            min_p=self.decimal("min_p", 0.0, 0, 1),
            repetition_penalty=self._above_zero("repetition_penalty", 1.0, 1e30),
            presence_penalty=self.decimal("presence_penalty", 0.0, -2, 2),
            frequency_penalty=self.decimal("frequency_penalty", 0.0, -2, 2),
            logit_bias=self.biases("logit_bias"),
            stop=self.stops(),
            stop_token_ids=self.stop_tokens(),
            ignore_eos=self.flag("ignore_eos"),
            min_tokens=self.integer("min_tokens", 0, 0, 2**31 - 1),
            seed=self.seed(n),
        )
        try:
            return SamplingParams(n=n, **fields, **given)
        except ConfigError as error:
            raise wrong_setting(error) from None

    def seed(self, n: int) -> int | None:
        """The seed of the first choice, in the range of the engine's; OpenAI's have 64 bits and a sign."""
        lowest = -(2**63)
        value = self.integer("seed", lowest, lowest, 2**63 - 1)
        return None if value == lowest else value % (2**32 - n + 1)

    def biases(self, name: str) -> dict[int, float]:
        """Token ids, which are names in JSON, with numbers."""
        value = self.take(name)
        if value is None:
            return {}
        if not isinstance(value, dict) or not all(key.isdecimal() and len(key) < 10 for key in value):
            raise wrong_type(name, "an object of token ids with numbers", value)
        fields = Fields(value)
        return {int(key): fields.decimal(key, 0.0, -100, 100) for key in value}

    def stops(self) -> tuple[str, ...]:
        value = self.take("stop")
        if value is None:
            return ()
        strings = [value] if isinstance(value, str) else value
        if not isinstance(strings, list) or not all(isinstance(one, str) for one in strings):
            raise wrong_type("stop", "a string or an array of strings", value)
        if len(strings) > MOST_STOPS:
            raise _too_long("stop", MOST_STOPS, len(strings))
        for one in strings:
            if not one or len(one) > LONGEST_STOP:
                raise invalid(f"Invalid 'stop': each string must have 1 to {LONGEST_STOP} characters.", "stop")
        return tuple(valid_text("stop", one) for one in strings)

    def stop_tokens(self) -> tuple[int, ...]:
        """The distinct ids of `stop_token_ids`: one fewer than the engine takes, since the token that ends a turn may
        be added to them."""
        tokens = tuple(dict.fromkeys(self.token_ids("stop_token_ids")))
        if len(tokens) >= MOST_STOP_TOKENS:
            raise _too_long("stop_token_ids", MOST_STOP_TOKENS - 1, len(tokens))
        return tokens

    def token_ids(self, name: str) -> tuple[int, ...]:
        value = self.take(name)
        if value is None:
            return ()
        if not isinstance(value, list) or not all(map(_is_id, value)):
            raise wrong_type(name, "an array of integers", value)
        return tuple(value)

    def prompts(self, name: str) -> tuple[str | tuple[int, ...], ...]:
        """One text or several, or token ids of one or several."""
        value = self.take(name)
        if value is None:
            raise missing(name)
        if isinstance(value, str):
            return (valid_text(name, value),)
        if isinstance(value, list) and value:
            if all(isinstance(one, str) for one in value):
                return tuple(valid_text(name, one) for one in value)
            if all(map(_is_id, value)):
                return (tuple(value),)
            if all(isinstance(one, list) and all(map(_is_id, one)) for one in value):
                return tuple(map(tuple, value))
        raise wrong_type(name, "a string, an array of strings, token ids, or arrays of token ids", value)

    def messages(self, name: str) -> tuple[tuple[str, str], ...]:
        """(role, content) of each message; a content is a text or a list of parts that are texts."""
        value = self.take(name)
        if value is None:
            raise missing(name)
        if not isinstance(value, list):
            raise wrong_type(name, "an array of objects", value)
        if not value:
            raise invalid(
                f"Invalid '{name}': empty array. Expected an array with minimum length 1, but got an empty array "
                "instead.",
                name,
                "empty_array",
            )
        return tuple(_message(f"{name}[{place}]", one) for place, one in enumerate(value))

    def refusal(self, name: str, why: str) -> APIError:
        return invalid(f"Unsupported parameter: '{name}' is not supported with this model: {why}.", name, UNSUPPORTED)

    def check_rest(self) -> None:
        """Raises APIError for a field that is not known, or whose meaning would be lost."""
        for name, value in self._left.items():
            if value is None or name in NO_EFFECT:
                continue
            if name not in REFUSED:
                known = [*self._known, *NO_EFFECT]
                raise invalid(
                    f"Unrecognized request argument supplied: {name[:100]}{suggestion(name[:100], known)}",
                    name[:100],
                    "unknown_parameter",
                )
            nothing, why = REFUSED[name]
            if not any(type(value) is type(one) and value == one for one in nothing):
                raise self.refusal(name, why)

    def _include_usage(self, stream: bool) -> bool:
        value = self.take("stream_options")
        if value is None:
            return False
        if not stream:
            raise invalid("The 'stream_options' parameter is only allowed when 'stream' is enabled.", "stream_options")
        if not isinstance(value, dict):
            raise wrong_type("stream_options", "an object", value)
        options = Fields(value)
        usage = options.flag("include_usage")
        options.flag("include_obfuscation")  # padding against observers of the network's traffic
        options.check_rest()
        return usage

    def _above_zero(self, name: str, default: float, high: float) -> float:
        value = self.decimal(name, default, 0, high)
        if value < 1e-30:
            raise invalid(f"Invalid '{name}': must be above 0, but got {value:g} instead.", name)
        return value


def valid_text(name: str, text: str) -> str:
    """The text. Raises APIError if it has half a surrogate pair, which no tokenizer can read."""
    try:
        text.encode()
    except UnicodeEncodeError:
        raise invalid(f"Invalid '{name}': the text has half of a surrogate pair, so it is not Unicode.", name) from None
    return text


def missing(name: str) -> APIError:
    return invalid(f"Missing required parameter: '{name}'.", name, "missing_required_parameter")


def wrong_type(name: str, expected: str, value: Any) -> APIError:
    return invalid(
        f"Invalid type for '{name}': expected {expected}, but got {type_name(value)} instead.", name, "invalid_type"
    )


def _too_long(name: str, most: int, length: int) -> APIError:
    return invalid(
        f"Invalid '{name}': array too long. Expected an array with maximum length {most}, but got an array with length "
        f"{length} instead.",
        name,
        "array_above_max_length",
    )


def _in_range(name: str, value: Any, low: Any, high: Any, kind: str) -> Any:
    for limit, beyond, side, sign, code in (
        (low, value < low, "below minimum", ">=", "below_min"),
        (high, high is not None and value > high, "above maximum", "<=", "above_max"),
    ):
        if beyond or not math.isfinite(min(value, 1e300)):
            shown = limit if isinstance(limit, int) else f"{limit:g}"
            raise invalid(
                f"Invalid '{name}': {kind} {side} value. Expected a value {sign} {shown}, but got "
                f"{_short(value)} instead.",
                name,
                f"{kind}_{code}_value",
            )
    return value


def _short(value: Any) -> str:
    text = str(value)
    return text if len(text) <= 40 else text[:40] + "…"


def _message(place: str, value: Any) -> tuple[str, str]:
    if not isinstance(value, dict):
        raise wrong_type(place, "an object", value)
    role, content = value.get("role"), value.get("content")
    if role is None:
        raise missing(f"{place}.role")
    if not isinstance(role, str):
        raise wrong_type(f"{place}.role", "a string", role)
    if value.get("tool_calls") or value.get("function_call"):
        raise invalid("Tool calls are not supported: the model has not learned to call tools.", f"{place}.tool_calls")
    if content is None:
        raise missing(f"{place}.content")
    if isinstance(content, list):
        content = "".join(_part(f"{place}.content[{number}]", part) for number, part in enumerate(content))
    if not isinstance(content, str):
        raise wrong_type(f"{place}.content", "a string or an array of text parts", content)
    return "system" if role == "developer" else role, valid_text(f"{place}.content", content)


def _part(place: str, part: Any) -> str:
    if not isinstance(part, dict):
        raise wrong_type(place, "an object", part)
    if part.get("type") != "text":
        raise invalid(f"Invalid '{place}.type': only parts of type 'text' are supported.", f"{place}.type")
    if not isinstance(part.get("text"), str):
        raise wrong_type(f"{place}.text", "a string", part.get("text"))
    return part["text"]


def _is_id(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def type_name(value: Any) -> str:
    """The name of a JSON value's type, with its article."""
    names: Sequence[tuple[Callable[[Any], bool], str]] = (
        (lambda x: x is None, "null"),
        (lambda x: isinstance(x, bool), "a boolean"),
        (lambda x: isinstance(x, int), "an integer"),
        (lambda x: isinstance(x, float), "a decimal"),
        (lambda x: isinstance(x, str), "a string"),
        (lambda x: isinstance(x, list) and not x, "an empty array"),
        (lambda x: isinstance(x, list), "an array"),
    )
    return next((name for matches, name in names if matches(value)), "an object")
