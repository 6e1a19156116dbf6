"""The texts of one HTTP request, from the engine's thread to the server's loop."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
from collections.abc import AsyncIterator
from typing import Any

from gptjax.config import ConfigError
from gptjax.inference.growing_text import NOT_FINITE
from gptjax.inference.request import Event, Request
from gptjax.inference.waiting import EngineDown, QueueFull
from gptjax.serving import errors
from gptjax.serving.models import Served
from gptjax.serving.prompts import Prompt, prompts_of
from gptjax.serving.requests import Asked


@dataclasses.dataclass(frozen=True)
class Part:
    """What is new in one choice of an answer.

    Attributes:
      choice: its index; the n choices of the first prompt come first.
      prompt, request: which it continues, and where it is generated.
    """

    choice: int
    prompt: Prompt
    request: Request
    event: Event


class Answers:
    """The texts of a request, while they are generated.

    seconds: after which they are ended; None: no limit.

    Raises:
      APIError: the request cannot be answered by this model, or cannot be taken now.
    """

    def __init__(self, served: Served, asked: Asked, seconds: float | None = None):
        self.served, self.asked = served, asked
        self.prompts, self.texts = prompts_of(served, asked), served.texts
        self.requests: list[Request] = []
        self._parts: asyncio.Queue[Part] = asyncio.Queue()
        self._loop = asyncio.get_running_loop()
        self._seconds, self._began = seconds, self._loop.time()
        adapter = served.adapter(asked.model)
        try:
            params = dataclasses.replace(asked.params, stop_token_ids=self._stop_token_ids())
            for prompt in self.prompts:
                self.requests.append(self._submit(prompt, params, adapter))
        except QueueFull:
            self.cancel()
            raise errors.queue_full(served.engine.max_waiting) from None
        except EngineDown:
            self.cancel()
            raise errors.shutting_down() from None
        except ConfigError as error:
            self.cancel()
            raise errors.wrong_setting(error) from None
        except Exception:
            self.cancel()
            raise

    def cancel(self) -> None:
        for request in self.requests:
            request.cancel()

    async def parts(self) -> AsyncIterator[Part]:
        """Yields what is new until all texts have ended.

        Raises:
          APIError: the engine could not finish a text, or not in time.
        """
        running = len(self.prompts) * self.asked.params.n
        ends = None if self._seconds is None else self._began + self._seconds
        while running:
            try:
                async with asyncio.timeout_at(ends):
                    part = await self._parts.get()
            except TimeoutError:
                self.cancel()
                raise errors.took_too_long(self._seconds or 0) from None
            reason = part.event.finish_reason
            if reason == "error":
                self.cancel()
                raise errors.failed(f"{NOT_FINITE[:1].upper()}{NOT_FINITE[1:]}." * (part.request.error == NOT_FINITE))
            if reason == "cancelled":
                raise errors.shutting_down()
            running -= reason is not None
            yield part

    @property
    def usage(self) -> dict[str, Any]:
        prompt = sum(len(prompt.tokens) for prompt in self.prompts)
        written = sum(request.usage.completion_tokens for request in self.requests)
        cached = sum(request.usage.cached_tokens for request in self.requests)
        return {
            "prompt_tokens": prompt,
            "completion_tokens": written,
            "total_tokens": prompt + written,
            "prompt_tokens_details": {"cached_tokens": cached},
        }

    def _stop_token_ids(self) -> tuple[int, ...]:
        """Those of the request, and the token that ends a turn, if the run knows conversations."""
        renderer, params = self.served.renderer, self.asked.params
        ends = () if renderer is None or params.ignore_eos else (renderer.end_id,)
        return tuple(dict.fromkeys((*params.stop_token_ids, *ends)))

    def _submit(self, prompt: Prompt, params: Any, adapter: str | None) -> Request:
        first = len(self.requests) * params.n
        request: list[Request] = []

        def listener(event: Event) -> None:  # in the engine's thread
            with contextlib.suppress(RuntimeError):  # the loop has ended, and nobody waits for the text
                self._loop.call_soon_threadsafe(hand_over, event)

        def hand_over(event: Event) -> None:  # in the loop, when `submit` has returned
            self._parts.put_nowait(Part(first + event.index, prompt, request[0], event))

        request.append(
            self.served.engine.submit(
                prompt.given,
                params,
                adapter=adapter,
                begin=prompt.begins,
                stream=self.asked.stream,
                listener=listener,
            )
        )
        return request[0]
