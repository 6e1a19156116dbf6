"""What a server serves: the model of a run, and adapters over it, each by a name of its own."""

from __future__ import annotations

import dataclasses
import time
from typing import Any

from gptjax.conversation import Renderer
from gptjax.inference.engine import Engine
from gptjax.inference.generate import Generator
from gptjax.serving.errors import no_such_model
from gptjax.serving.tokens import TokenTexts


@dataclasses.dataclass(frozen=True)
class Served:
    """A run that is served.

    Attributes:
      name: of the run's model; the engine's adapters have theirs.
      engine: writes texts with the generator's model.
      renderer: makes prompts from conversations; None: the run was not trained on any.
      fingerprint: identifies the parameters.
      created: seconds since 1970.
    """

    name: str
    engine: Engine
    generator: Generator
    renderer: Renderer | None
    fingerprint: str
    created: int = dataclasses.field(default_factory=lambda: int(time.time()))

    @property
    def context(self) -> int:
        """The most tokens of prompt and text together."""
        return self.engine.max_context

    def room(self, prompt_tokens: int) -> int:
        """How many tokens can be written after a prompt: the model need not read the last of them."""
        return self.context + 1 - prompt_tokens if self.generator.family.continues else self.context

    @property
    def texts(self) -> TokenTexts:
        return TokenTexts(self.generator.tokenizer)

    def names(self) -> list[str]:
        return [self.name, *self.engine.adapters]

    def adapter(self, model: str) -> str | None:
        """The engine's name of an adapter; None for the run itself. Raises APIError for other names."""
        if model == self.name:
            return None
        if model in self.engine.adapters:
            return model
        raise no_such_model(model[:100])

    def listed(self) -> list[dict[str, Any]]:
        """The models as /v1/models lists them, with vLLM's further fields."""
        return [
            {
                "id": name,
                "object": "model",
                "created": self.created,
                "owned_by": "gptjax",
                "root": self.name,
                "parent": None if name == self.name else self.name,
                "max_model_len": self.context,
                "chat_template": None if self.renderer is None else self.renderer.template.name,
            }
            for name in self.names()
        ]
