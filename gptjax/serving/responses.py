"""The JSON of answers. A choice is made of pieces: a stream sends each, and a whole answer joins them."""

from __future__ import annotations

import secrets
import time
from typing import Any

from gptjax.inference.request import TokenLogprob
from gptjax.serving.answers import Answers, Part
from gptjax.serving.tokens import Places


class CompletionPieces:
    """The pieces of one choice of /v1/completions: {"text", "logprobs", "finish_reason"}.

    With `echo`, the first piece begins with the prompt. Log-probabilities of a prompt are those of the tokens that the
    client wrote: the begin token before them has none, so that the first token has one.
    """

    def __init__(self, answers: Answers, index: int):
        self._asked, self._texts, self.index = answers.asked, answers.texts, index
        self._places: Places | None = None
        self._echoed = not answers.asked.echo

    def piece(self, part: Part) -> dict[str, Any]:
        text, logprobs = part.event.text, None
        if self._asked.params.logprobs is not None:
            if self._places is None:
                begins = not part.prompt.text or (self._asked.echo and part.prompt.begins)
                self._places = Places(self._texts, begins)
            scored = [(each.token_id, each) for each in part.event.logprobs or ()]
            logprobs = self._logprobs([*(() if self._echoed else self._prompt(part)), *scored])
        if not self._echoed:
            text, self._echoed = part.prompt.text + text, True
        return {
            "index": self.index,
            "text": text,
            "logprobs": logprobs,
            "finish_reason": part.event.finish_reason,
        }

    def joined(self, pieces: list[dict[str, Any]]) -> dict[str, Any]:
        whole = {**pieces[-1], "text": "".join(piece["text"] for piece in pieces)}
        if whole["logprobs"] is not None:
            names = whole["logprobs"]
            whole["logprobs"] = {name: [x for piece in pieces for x in piece["logprobs"][name]] for name in names}
        return whole

    def _prompt(self, part: Part) -> list[tuple[int, TokenLogprob | None]]:
        scored = part.request.prompt_logprobs or []
        return list(zip(part.prompt.tokens, scored))[part.prompt.hidden :]

    def _logprobs(self, scored: list[tuple[int, TokenLogprob | None]]) -> dict[str, list]:
        assert self._places is not None
        return {
            "tokens": [self._texts.text(token) for token, _ in scored],
            "token_logprobs": [None if each is None else each.logprob for _, each in scored],
            "top_logprobs": [self._top(each) for _, each in scored],
            "text_offset": [self._places.next(token) for token, _ in scored],
        }

    def _top(self, each: TokenLogprob | None) -> dict[str, float] | None:
        """The likeliest tokens that can be drawn, and the token itself. Two with one string: the likelier one's."""
        if each is None or not self._asked.params.logprobs:
            return None if each is None else {self._texts.text(each.token_id): each.logprob}
        top: dict[str, float] = {}
        for token, logprob in each.top:
            if token >= self._texts.tokenizer.vocab_size:  # a row of the embedding that no token uses
                continue
            top.setdefault(self._texts.text(token), logprob)
        top[self._texts.text(each.token_id)] = each.logprob  # exactly: lm_eval compares the two for equality
        return top


class ChatPieces:
    """The pieces of one choice of /v1/chat/completions: {"delta", "logprobs", "finish_reason"}."""

    def __init__(self, answers: Answers, index: int):
        self._asked, self._texts, self.index = answers.asked, answers.texts, index

    def opening(self) -> dict[str, Any]:
        """The first piece of a stream: who speaks."""
        delta = {"role": "assistant", "content": ""}
        return {"index": self.index, "delta": delta, "logprobs": None, "finish_reason": None}

    def piece(self, part: Part) -> dict[str, Any]:
        logprobs = None
        if self._asked.params.logprobs is not None:
            logprobs = {"content": [self._entry(each) for each in part.event.logprobs or ()], "refusal": None}
        return {
            "index": self.index,
            "delta": {"content": part.event.text} if part.event.text or logprobs else {},
            "logprobs": logprobs,
            "finish_reason": part.event.finish_reason,
        }

    def joined(self, pieces: list[dict[str, Any]]) -> dict[str, Any]:
        content = "".join(piece["delta"].get("content", "") for piece in pieces)
        logprobs = pieces[-1]["logprobs"]
        if logprobs is not None:
            logprobs = {"content": [x for piece in pieces for x in piece["logprobs"]["content"]], "refusal": None}
        return {
            "index": self.index,
            "message": {"role": "assistant", "content": content, "refusal": None},
            "logprobs": logprobs,
            "finish_reason": pieces[-1]["finish_reason"],
        }

    def _entry(self, each: TokenLogprob) -> dict[str, Any]:
        top = [self._named(token, logprob) for token, logprob in each.top[: self._asked.params.logprobs]]
        return {**self._named(each.token_id, each.logprob), "top_logprobs": top}

    def _named(self, token: int, logprob: float) -> dict[str, Any]:
        return {"token": self._texts.text(token), "logprob": logprob, "bytes": self._texts.bytes(token)}


class Response:
    """An answer that is made from the parts of its texts."""

    def __init__(self, answers: Answers):
        self.answers = answers
        self.chat = answers.asked.chat
        count = len(answers.prompts) * answers.asked.params.n
        kind: Any = ChatPieces if self.chat else CompletionPieces
        self.choices = [kind(answers, index) for index in range(count)]
        self._identity = ("chatcmpl-" if self.chat else "cmpl-") + secrets.token_hex(12)
        self._created = int(time.time())

    async def whole(self) -> dict[str, Any]:
        """Waits for all texts. Raises what `Answers.parts` raises."""
        pieces: list[list[dict[str, Any]]] = [[] for _ in self.choices]
        async for part in self.answers.parts():
            pieces[part.choice].append(self.choices[part.choice].piece(part))
        joined = [choice.joined(some) for choice, some in zip(self.choices, pieces)]
        return self.object(joined, "chat.completion" if self.chat else "text_completion") | {
            "usage": self.answers.usage
        }

    def chunk(self, choices: list[dict[str, Any]]) -> dict[str, Any]:
        """One object of a stream. If its usage is wanted, all but the last say that it is not known yet."""
        chunk = self.object(choices, "chat.completion.chunk" if self.chat else "text_completion")
        if self.answers.asked.include_usage:
            chunk["usage"] = None if choices else self.answers.usage
        return chunk

    def object(self, choices: list[dict[str, Any]], kind: str) -> dict[str, Any]:
        return {
            "id": self._identity,
            "object": kind,
            "created": self._created,
            "model": self.answers.asked.model,
            "system_fingerprint": self.answers.served.fingerprint,
            "choices": choices,
        }
