"""The prompts of a request as the model reads them, and the room that is left for texts."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from gptjax.config import ConfigError
from gptjax.conversation import BadConversation, Message, checked
from gptjax.conversation.messages import ROLES
from gptjax.display.formatting import counted
from gptjax.serving.errors import invalid
from gptjax.serving.models import Served
from gptjax.serving.requests import Asked


@dataclasses.dataclass(frozen=True)
class Prompt:
    """A prompt, with what an answer says about it.

    Attributes:
      given: for the engine: a text, or token ids.
      begins: whether the engine puts the begin token before a text.
      tokens: all tokens that the model reads.
      hidden: how many of these, at their beginning, the client did not write.
      text: what the client wrote.
    """

    given: str | list[int]
    begins: bool
    tokens: list[int]
    hidden: int
    text: str


def prompts_of(served: Served, asked: Asked) -> list[Prompt]:
    """The prompts, all of which fit into the context with what is to be written.

    Raises:
      APIError: a prompt is empty, has unknown ids or does not fit; a conversation's roles are out of order; the run
        has no chat template.
    """
    if asked.chat:
        prompts = [_conversation(served, asked.messages)]
    else:
        prompts = [_document(served, prompt, asked.add_special_tokens) for prompt in asked.prompts]
    for prompt in prompts:
        _check_room(served, asked, len(prompt.tokens))
    return prompts


def conversation_tokens(served: Served, messages: Sequence[tuple[str, str]]) -> list[int]:
    """The token ids of a conversation, up to where the answer begins. Raises APIError."""
    if served.renderer is None:
        raise invalid(
            f"The model `{served.name}` has no chat template, as it was not trained on conversations: use "
            "/v1/completions to continue a text, or fine-tune the run by configs/instructions.py.",
            "messages",
            "no_chat_template",
        )
    for place, (role, _) in enumerate(messages):
        if role not in ROLES:
            raise invalid(
                f"Invalid value: '{role[:40]}'. Supported values are: {', '.join(map(repr, ROLES))}.",
                f"messages[{place}].role",
                "invalid_value",
            )
    try:
        kept = checked([Message(role, content) for role, content in messages], answered=False)
    except BadConversation as error:
        raise invalid(f"Invalid 'messages': {error}.", "messages", "invalid_value") from None
    begin = served.generator.begin_id
    return [*([] if begin is None else [begin]), *served.renderer.prompt(kept).tolist()]


def _conversation(served: Served, messages: Sequence[tuple[str, str]]) -> Prompt:
    ids = conversation_tokens(served, messages)
    return Prompt(ids, False, ids, len(ids), "")


def _document(served: Served, prompt: str | tuple[int, ...], begins: bool) -> Prompt:
    """A prompt of /v1/completions. Documents follow the begin token in training, so it comes before token ids as well,
    unless they start with it."""
    generator = served.generator
    begin = generator.begin_id
    given: str | list[int] = prompt if isinstance(prompt, str) else list(prompt)
    ends = [begin] if begin is not None else []
    if isinstance(given, list) and begins and generator.family.continues and given[:1] != ends:
        size = generator.config.vocab_size
        if any(not 0 <= token < size for token in given):
            raise invalid(f"Invalid 'prompt': token ids must be from 0 to {size - 1}.", "prompt", "invalid_value")
        text = generator.tokenizer.decode(_known(served, given))
        ids = ends + given
        return Prompt(ids, False, ids, len(ends), text)
    try:
        framed = generator.framed(given, begins)
    except ConfigError as error:
        most = generator.config[generator.family.prompt_field]
        if "must be at most model." in str(error):
            raise _too_long(served, most, str(error).removeprefix("prompt = ").split(":")[0], "prompt") from None
        raise invalid(f"Invalid 'prompt': {error}.", "prompt", "invalid_value") from None
    is_text = isinstance(given, str)
    hidden = int(is_text and begins and framed.tokens[:1] == ends)
    return Prompt(given, begins, framed.tokens, hidden, framed.text)


def _known(served: Served, tokens: Sequence[int]) -> list[int]:
    return [token for token in tokens if token < served.generator.tokenizer.vocab_size]


def _check_room(served: Served, asked: Asked, prompt_tokens: int) -> None:
    """Raises APIError if the prompt, or the prompt with max_tokens, does not fit."""
    what = "messages" if asked.chat else "prompt"
    if served.generator.family.continues and prompt_tokens > served.context:
        raise _too_long(served, served.context, counted(prompt_tokens, "token"), what)
    wanted, room = asked.params.max_tokens, served.room(prompt_tokens)
    if wanted is not None and wanted > room:
        limit = served.context
        raise invalid(
            f"This model's maximum context length is {limit} tokens. However, you requested "
            f"{prompt_tokens + wanted} tokens ({prompt_tokens} in the {what}, {wanted} in the completion), and there "
            f"is room for {room}. Please reduce the length of the {what} or '{asked.limit_field}'.",
            asked.limit_field,
            "context_length_exceeded",
        )


def _too_long(served: Served, most: int, resulted: str, what: str) -> Exception:
    return invalid(
        f"This model's maximum context length is {served.context} tokens. However, your {what} resulted in "
        f"{resulted}, and at most {most} are read. Please reduce the length of the {what}.",
        what,
        "context_length_exceeded",
    )
