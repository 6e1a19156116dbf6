"""Conversations with random words, and a folder that is prepared from them."""

import json
import random

from pipeline_running import prepare

from gptjax.conversation import Message, Renderer, load_template
from gptjax.corpus.config import default, source, validate
from gptjax.tokenizer import load


def random_conversations(count, words=8, seed=0):
    """Conversations of one to three questions; each begins with its number."""
    draw = random.Random(seed)

    def text():
        return " ".join(draw.choices(["ab", "c", "def", "<|im_end|>", "\n"], k=draw.randint(1, words))) + "."

    made = []
    for number in range(count):
        turns = [Message("system", text())] * draw.randint(0, 1) + [Message("user", f"{number}: {text()}")]
        for _ in range(draw.randint(0, 2)):
            turns += [Message("assistant", text()), Message("user", text())]
        made.append([*turns, Message("assistant", text())])
    return made


def corpus_config(path, **fields):
    made = default()
    made.sources = (source(name="chats", kind="conversations", path=str(path)),)
    made.cleaning.update(repair=False, language=False)
    made.duplicates.kind = "none"
    made.tokenizer.name = "byte"
    made.split.validation_fraction = 0.25
    made.update_from_flattened_dict(fields)
    validate(made)
    return made


def write_conversations(folder, conversations, **fields):
    """(the prepared folder, its renderer) of these conversations. fields: of the corpus's config."""
    folder.mkdir()
    file = folder.with_suffix(".jsonl")
    rows = [{"messages": [message._asdict() for message in messages]} for messages in conversations]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    prepare(corpus_config(file, **fields), folder)
    return folder, Renderer(load_template(fields.get("template", "chatml")), load(folder))
