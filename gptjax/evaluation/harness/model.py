"""The model for lm_eval: log-likelihoods of continuations, texts, and log-likelihoods of whole documents.

lm_eval sends all requests of a kind at once and computes scores at the end. Each answer is recorded as soon as it is
known, so a killed evaluation computes only the missing answers when it resumes. Equal requests are computed once.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import xxhash

from gptjax.errors import ConfigError
from gptjax.evaluation.answering import ModelAnswerer
from gptjax.evaluation.harness.library import OPTION, lm_eval
from gptjax.evaluation.loglikelihood import Continued
from gptjax.evaluation.requests import Generated, Scored
from gptjax.evaluation.tasks.records import Records

DEFAULT_NEW_TOKENS = 256  # the default of lm_eval's own models
NEW_TOKENS = ("max_gen_toks", "max_new_tokens", "max_tokens", "max_completion_tokens")
# Greedy generation requires these values; several names are options of samplers, which it does not use.
GREEDY = {"do_sample": False, "temperature": 0, "num_beams": 1}
UNUSED = ("top_p", "top_k", "min_p")
Progress = Callable[[str, int, int], None]  # (kind of request, number of known answers, number of requests)


def make_model(answerer: ModelAnswerer, records: Records, progress: Progress = lambda kind, done, total: None) -> Any:
    """An `lm_eval.api.model.LM`. The class is defined here, since the library with its base class is an extra."""
    asked = _Asked(answerer, records, progress)

    class HarnessModel(lm_eval().api.model.LM):  # type: ignore[name-defined,misc]
        @property
        def num_truncated(self) -> int:
            """The number of different requests so far that did not fit into the context."""
            return len(asked.truncated)

        def loglikelihood(self, requests: Sequence[Any]) -> list[tuple[float, bool]]:
            found = asked.answers("log-likelihoods", [each.args for each in requests], asked.score)
            return [(float(each["nats"]), each["greedy"]) for each in found]

        def loglikelihood_rolling(self, requests: Sequence[Any]) -> list[float]:
            found = asked.answers("documents in windows", [each.args for each in requests], asked.read)
            return [float(each["nats"]) for each in found]

        def generate_until(self, requests: Sequence[Any]) -> list[str]:
            found = asked.answers("texts", [each.args for each in requests], asked.write)
            return [each["text"] for each in found]

    return HarnessModel()


def generated(prompt: str, given: Mapping[str, Any]) -> Generated:
    """The request for a text after a prompt, from a task's generation_kwargs.

    Raises:
      ConfigError: they do not describe greedy generation.
    """
    settings = dict(given)
    until = settings.pop("until", None) or ()
    limits = [settings.pop(name) for name in NEW_TOKENS if settings.get(name) is not None]
    for name in UNUSED:
        settings.pop(name, None)
    if settings.get("do_sample") is False:
        settings.pop("temperature", None)  # ignored
    for name, value in settings.items():
        if name in NEW_TOKENS:
            continue
        if name not in GREEDY:
            allowed = ", ".join(("until", *NEW_TOKENS, *GREEDY))
            raise ConfigError(f"generation_kwargs: {name} = {value!r}: is not known; {OPTION} takes {allowed}")
        if value != GREEDY[name]:
            raise ConfigError(
                f"generation_kwargs: {name} = {value!r}: must be {GREEDY[name]!r}, as {OPTION} writes greedily"
            )
    stop = (until,) if isinstance(until, str) else tuple(until)
    return Generated(prompt, int(limits[0]) if limits else DEFAULT_NEW_TOKENS, tuple(each for each in stop if each))


class _Asked:
    """Requests of lm_eval, by their arguments, and the answers to them."""

    def __init__(self, answerer: ModelAnswerer, records: Records, progress: Progress):
        self.answerer, self.records, self.progress = answerer, records, progress
        self.truncated: set[str] = set()  # keys of requests

    def answers(
        self, kind: str, requests: Sequence[tuple], ask: Callable[[list[tuple]], Iterator[tuple[int, dict[str, Any]]]]
    ) -> list[dict[str, Any]]:
        """The record of each request; requests without a record are computed."""
        keys = [xxhash.xxh3_128_hexdigest(json.dumps([kind, *request]).encode()) for request in requests]
        by_key = dict(zip(keys, requests))
        left = [key for key in by_key if key not in self.records.found]
        done = len(by_key) - len(left)
        self.progress(kind, done, len(by_key))
        for index, answer in ask([by_key[key] for key in left]):
            self.records.add({"item": left[index], **answer})
            done += 1
            self.progress(kind, done, len(by_key))
        self.truncated |= {key for key in keys if self.records.found[key].get("truncated")}
        return [self.records.found[key] for key in keys]

    def score(self, requests: list[tuple]) -> Iterator[tuple[int, dict[str, Any]]]:
        for index, answer in self.answerer.score([Scored(context, text) for context, text in requests]):
            yield index, {"nats": answer.nats, "greedy": answer.greedy, "truncated": answer.truncated}

    def write(self, requests: list[tuple]) -> Iterator[tuple[int, dict[str, Any]]]:
        for index, answer in self.answerer.generate([generated(*request) for request in requests]):
            yield index, {"text": answer.text, "truncated": answer.truncated}

    def read(self, requests: list[tuple]) -> Iterator[tuple[int, dict[str, Any]]]:
        """Documents after the begin token, in the windows of lm_eval's `hf` model, so that scores are comparable.

        These do not overlap: each window except the last starts after a single token of context. `evaluation/text.py`
        gives every token at least half a context.
        """
        begin_id = self.answerer.generator.begin_id
        parts: list[Continued] = []
        owner: list[int] = []
        nats, left = [0.0] * len(requests), [0] * len(requests)
        for index, (text,) in enumerate(requests):
            ids = [int(token) for token in self.answerer.tokenizer.encode(text)]
            some = _windows([*([] if begin_id is None else [begin_id]), *ids], self.answerer.context)
            parts += some
            owner += [index] * len(some)
            left[index] = len(some)
            if not some:  # an empty document
                yield index, {"nats": 0.0}
        for part, score in self.answerer.scorer.score(parts):
            index = owner[part]
            nats[index] += score.nats
            left[index] -= 1
            if not left[index]:
                yield index, {"nats": nats[index]}


def _windows(tokens: list[int], context: int) -> list[Continued]:
    """A document's tokens, of which the first is not scored, in windows that do not overlap."""
    utils = lm_eval().utils
    cut = utils.get_rolling_token_windows(tokens[1:], tokens[0] if tokens else None, context, context_len=1)
    return [Continued([*before, *scored], len(before)) for before, scored in map(utils.make_disjoint_window, cut)]
