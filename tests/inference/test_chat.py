"""What the model reads before an answer: the whole conversation, or the latest turns that fit."""

from types import SimpleNamespace

import pytest

from gptjax.config import ConfigError
from gptjax.conversation import Message, Renderer, load_template
from gptjax.inference.chat import Chat
from gptjax.tokenizer import ByteTokenizer


class Recorder:
    """Stands for a Generator: answers 'one two', and keeps the prompts that it was given."""

    begin_id = 2

    def __init__(self, context):
        self.config = SimpleNamespace(max_positions=context)
        self.prompts = []

    def stream(self, prompt, **options):
        self.prompts.append(prompt)
        yield "one "
        yield "two"
        return SimpleNamespace(finish_reason="eos")


@pytest.fixture
def chat():
    template = load_template("turns")
    return lambda context=1000, system="": Chat(Recorder(context), Renderer(template, ByteTokenizer()), system)


def ask(chat, question, **options):
    return "".join(chat.answer(question, **{"max_new_tokens": 10, **options}))


def test_the_model_reads_all_turns_after_the_begin_token(chat):
    made = chat(system="S")
    assert ask(made, "a") == ask(made, "b") == "one two"
    wanted = [Message("system", "S"), Message("user", "a"), Message("assistant", "one two"), Message("user", "b")]
    assert made.generator.prompts[1] == [2, *made._renderer.prompt(wanted)]
    assert made.whole() == [*wanted, Message("assistant", "one two")] and made.forgotten == 0
    assert made.tokens() == 1 + len(made._renderer.render(made.whole()).ids)
    assert made.undo() == "b" and made.undo() == "a" and made.undo() is None and made.messages == []


def test_a_full_context_leaves_out_the_oldest_turns_and_keeps_the_system_message(chat):
    made = chat(context=45, system="S")  # an answer gets 10 of these, a turn of question and answer takes 12
    for number, forgotten in enumerate((0, 0, 0, 2, 4)):
        ask(made, str(number))
        assert made.forgotten == forgotten
        prompt = made.generator.prompts[-1]
        kept = made.messages[made.forgotten : -1]
        assert prompt == [2, *made._renderer.prompt([Message("system", "S"), *kept])] and len(prompt) + 10 <= 45
    assert len(made.messages) == 10
    with pytest.raises(ConfigError, match=r"message = 47 tokens .* at most 35"):
        ask(made, "x" * 40)
    assert len(made.messages) == 10
    assert ask(made, "x" * 25, max_new_tokens=1000) and len(made.generator.prompts[-1]) == 32


def test_an_answer_that_is_stopped_is_kept_as_far_as_it_was_shown(chat):
    made = chat()
    stream = made.answer("a", max_new_tokens=10)
    next(stream)
    stream.close()
    assert made.messages == [Message("user", "a"), Message("assistant", "one ")]
