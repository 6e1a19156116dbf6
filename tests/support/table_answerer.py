"""A fake model that answers from a table, and tasks in a folder: evaluation without a real model or a network."""

import json
import random
from pathlib import Path

from gptjax.evaluation.requests import LogLikelihood, Written


class TableAnswerer:
    """Answers from tables: (ending of the context, continuation) → nats; ending of the prompt → text.

    Requests in no table get a pseudo-random log-likelihood that depends only on the request. Answers come in reverse
    order, since an engine may give them in any order. stop_after: raises KeyboardInterrupt after that many answers,
    like a kill.
    """

    def __init__(self, nats=None, texts=None, greedy=(), stop_after=None, shift=0):
        self.nats, self.texts, self.greedy = nats or {}, texts or {}, set(greedy)
        self.stop_after, self.shift = stop_after, shift
        self.asked = []

    def _count(self, request):
        if self.stop_after is not None and len(self.asked) >= self.stop_after:
            raise KeyboardInterrupt
        self.asked.append(request)

    def score(self, requests):
        for index in reversed(range(len(requests))):
            request = requests[index]
            self._count(request)
            known = [nats for (end, text), nats in self.nats.items() if self._is(request, end, text)]
            drawn = -random.Random(f"{request}{self.shift}").uniform(1, 20)
            tokens, size = len(request.continuation.split()), len(request.continuation.encode())
            yield (
                index,
                LogLikelihood(known[0] if known else drawn, tokens, size, request.continuation in self.greedy, 0),
            )

    def _is(self, request, end, text):
        return request.context.rstrip().endswith(end) and request.continuation.strip() == text

    def generate(self, requests):
        for index in reversed(range(len(requests))):
            self._count(requests[index])
            found = [text for end, text in self.texts.items() if requests[index].prompt.endswith(end)]
            yield index, Written(found[0] if found else "no idea", 0, "stop")


def write_task(folder: Path, card: str, rows, name: str = "quiz") -> Path:
    """Writes rows as NAME.jsonl, and a card for it; returns the card's path."""
    (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    path = folder / f"{name}.toml"
    path.write_text(f'file = "{name}.jsonl"\n{card}')
    return path


CHOICES = """
kind = "multiple_choice"
prompt = "Question: {question}\\nAnswer:"
choices = ["{choices}"]
answer = "{gold}"
"""


def choice_rows(count: int = 8) -> list[dict]:
    return [
        {"question": f"what is {k}?", "choices": [f"it is {k}", "nothing", f"a number such as {k}"], "gold": k % 3}
        for k in range(count)
    ]
