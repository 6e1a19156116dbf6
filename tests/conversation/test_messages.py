"""Rows become messages in each of the layouts that trainers share; every fault is named without the row's values."""

import pytest

from gptjax.conversation.messages import BadConversation, Message, checked, messages_of

ASKED, ANSWERED = Message("user", "Hi"), Message("assistant", "Hello!")


def as_rows(*messages):
    return [{"role": role, "content": content} for role, content in messages]


@pytest.mark.parametrize(
    "row",
    [
        {"messages": as_rows(ASKED, ANSWERED)},
        {"messages": [{"role": "system", "content": " "}, *as_rows(ASKED, ANSWERED)]},
        {"messages": [*as_rows(ASKED), {"role": "assistant", "content": [{"type": "text", "text": "Hello!"}]}]},
        {"prompt": "Hi", "completion": "Hello!"},
        {"prompt": as_rows(ASKED), "completion": as_rows(ANSWERED), "messages": None},
        {"instruction": "Hi", "input": "", "output": "Hello!"},
    ],
)
def test_the_layouts_of_rows(row):
    assert messages_of(row) == [ASKED, ANSWERED]


def test_alpacas_input_follows_its_instruction():
    row = {"instruction": "Translate.", "input": "Bonjour ", "output": "Hello!"}
    assert messages_of(row)[0].content == "Translate.\n\nBonjour"


def test_several_turns_with_a_tool():
    roles = ("system", "user", "assistant", "tool", "tool", "assistant", "user", "assistant")
    messages = [Message(role, role) for role in roles]
    assert checked(messages) == messages and checked(messages[:-1], answered=False) == messages[:-1]


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ({"text": "Hi"}, "none of"),
        ({"instruction": "Hi"}, "none of"),
        ({"messages": "Hi"}, "no list"),
        ({"messages": [["user", "Hi"]]}, "without role"),
        ({"messages": [{"role": "user"}]}, "without role"),
        ({"messages": [{"role": "user", "content": 3}]}, "no text"),
        ({"messages": [{"role": "user", "content": [{"type": "image", "text": ""}]}]}, "no text"),
        ({"messages": as_rows(("human", "Hi"), ANSWERED)}, "a role"),
        ({"messages": as_rows(ANSWERED)}, "speaks first"),
        ({"messages": as_rows(ASKED, ASKED, ANSWERED)}, "user after user"),
        ({"messages": as_rows(ASKED, ANSWERED, ("system", "Be kind."))}, "system after assistant"),
        ({"messages": as_rows(ASKED)}, "no answer"),
        ({"messages": []}, "no answer"),
        ({"prompt": "Hi", "completion": " \n"}, "an empty completion"),
        ({"prompt": "", "completion": "Hello!"}, "an empty message"),
        ({"prompt": "a\0b", "completion": "Hello!"}, "NUL"),
    ],
)
def test_faults_are_named(row, reason):
    with pytest.raises(BadConversation, match=reason):
        messages_of(row)
