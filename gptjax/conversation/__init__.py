"""Conversations: who says what, and the token ids that a model reads.

messages.py   the messages of a row of data, checked
template.py   what is written around each message: data, not code, and the same as Jinja
rendering.py  messages → token ids, and which of them the assistant wrote

    template = load_template("chatml")
    tokenizer = gptjax.tokenizer.load("data/mine").extended(template.controls)
    rendered = Renderer(template, tokenizer).render([Message("user", "Hi"), Message("assistant", "Hello!")])
"""

from gptjax.conversation.messages import BadConversation, Message, checked, messages_of
from gptjax.conversation.rendering import Rendered, Renderer
from gptjax.conversation.template import TEMPLATES, Template, load_template, template_of

__all__ = [
    "TEMPLATES",
    "BadConversation",
    "Message",
    "Rendered",
    "Renderer",
    "Template",
    "checked",
    "load_template",
    "messages_of",
    "template_of",
]
