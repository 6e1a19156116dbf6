"""Tokens of texts and texts of tokens, as vLLM's server answers for them; lm_eval asks for these."""

from __future__ import annotations

from typing import Any

from gptjax.serving.errors import invalid
from gptjax.serving.fields import Fields, valid_text
from gptjax.serving.models import Served
from gptjax.serving.prompts import conversation_tokens


def tokens_of(served: Served, fields: Fields) -> dict[str, Any]:
    """The tokens of a `prompt`, or of a conversation (`messages`) with what comes before its answer.

    A prompt that is the name of a control token, such as '</s>', is that token. In a longer text, it is text.
    """
    fields.take("model")
    begins = fields.flag("add_special_tokens", True)
    fields.flag("add_generation_prompt", True)
    if fields.has("messages"):
        tokens = conversation_tokens(served, fields.messages("messages"))
    else:
        text = fields.text("prompt")
        generator = served.generator
        control = generator.tokenizer.control_ids.get(text)
        tokens = generator.tokenizer.encode(text) if control is None else [control]
        if begins and control is None and generator.begin_id is not None:
            tokens = [generator.begin_id, *tokens]
    fields.check_rest()
    return {"count": len(tokens), "max_model_len": served.context, "tokens": tokens}


def text_of(served: Served, fields: Fields) -> dict[str, Any]:
    """The text of `tokens`; control tokens stand for none."""
    fields.take("model")
    tokens, size = fields.token_ids("tokens"), served.generator.tokenizer.vocab_size
    if any(not 0 <= token < size for token in tokens):
        raise invalid(f"Invalid 'tokens': ids must be from 0 to {size - 1}.", "tokens", "invalid_value")
    fields.check_rest()
    return {"prompt": valid_text("tokens", served.generator.tokenizer.decode(tokens))}


def tokenizer_info(served: Served) -> dict[str, Any]:
    """The names of the tokens that begin a document and end a text, and the chat template in Jinja."""
    generator, renderer = served.generator, served.renderer
    names = {id: name for name, id in generator.tokenizer.control_ids.items()}
    return {
        "tokenizer_class": generator.tokenizer.kind,
        "vocab_size": generator.tokenizer.vocab_size,
        "bos_token": None if generator.begin_id is None else names.get(generator.begin_id),
        "eos_token": None if generator.end_id is None else names.get(generator.end_id),
        "chat_template": None if renderer is None else renderer.template.jinja(),
    }
