"""A request on its way through the engine, and the model that generates its texts."""

from __future__ import annotations

from dataclasses import dataclass

from gptjax.inference.batch import Batch
from gptjax.inference.generate import Generator
from gptjax.inference.growing_text import GrowingText
from gptjax.inference.prompt_reading import PromptReading
from gptjax.inference.request import Request


@dataclass
class ServedModel:
    """The base model or an adapter: its own parameters and its own batch."""

    generator: Generator
    batch: Batch
    id: bytes  # in digests of prompts


@dataclass(eq=False)
class Job:
    """A request with its texts; those not yet placed wait for a row."""

    request: Request
    model: ServedModel
    texts: list[GrowingText]
    unplaced: list[GrowingText]
    reading: PromptReading | None = None
