"""Chat templates of others are recognized as data if they write just that, and never otherwise."""

import os
import resource
import time

import gguf_models
import pytest

from gptjax.conversation import TEMPLATES, Message, Renderer, load_template
from gptjax.interop import chat_template as recognizing
from gptjax.interop.chat_template import recognized
from gptjax.interop.tokenizer_folder import chat_template
from gptjax.tokenizer import ByteTokenizer

LLAMA3 = (
    "{% for message in messages %}{% set content = '<|start_header_id|>' + message['role'] + '<|end_header_id|>\n\n' "
    "+ message['content'] | trim + '<|eot_id|>' %}{% if loop.index0 == 0 %}{% set content = bos_token + content %}"
    "{% endif %}{{ content }}{% endfor %}{% if add_generation_prompt %}"
    "{{ '<|start_header_id|>assistant<|end_header_id|>\n\n' }}{% endif %}"
)
QWEN = (
    "{%- if messages[0]['role'] != 'system' %}{{- '<|im_start|>system\nYou are helpful.<|im_end|>\n' }}{%- endif %}\n"
    "{%- for message in messages %}\n{%- if message.role == 'tool' %}\n"
    "{{- '<|im_start|>user\n<tool_response>\n' + message.content + '\n</tool_response><|im_end|>\n' }}\n{%- else %}\n"
    "{{- '<|im_start|>' + message.role + '\n' + message.content + '<|im_end|>' + '\n' }}\n{%- endif %}\n{%- endfor %}\n"
    "{%- if add_generation_prompt %}\n{{- '<|im_start|>assistant\n' }}\n{%- endif %}"
)
BYTES = ByteTokenizer().extended([*load_template("chatml").controls])
THEIRS = {name: gguf_models.theirs(name) for name in ("llama3", "qwen")}


@pytest.mark.parametrize("name", TEMPLATES)
@pytest.mark.parametrize("generation", [True, False])
def test_our_own_templates_are_recognized(name, generation):
    template = load_template(name)
    found, notes = recognized(chat_template(template, generation), BYTES)
    assert found is not None and not notes
    assert (found.turns, found.end, found.system) == (template.turns, template.end, template.system)
    assert set(found.controls) <= set(template.controls)


def test_the_template_of_llama_3_is_recognized():
    tokenizer = THEIRS["llama3"]
    found, notes = recognized(LLAMA3, tokenizer)
    assert found.end == "<|eot_id|>" and found.system == ""
    assert found.turns["tool"] == ("<|start_header_id|>tool<|end_header_id|>\n\n", "<|eot_id|>")
    assert notes == ["it removes spaces around messages, which gptjax does not"]
    ids = Renderer(found, tokenizer).prompt([Message("user", "Hi")])
    text = "user", "\n\n", "Hi", "assistant", "\n\n"
    controls = tokenizer.control_ids
    start, stop, end = (controls[name] for name in ("<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"))
    parts = [tokenizer.encode(each) for each in text]
    assert ids.tolist() == [start, *parts[0], stop, *parts[1], *parts[2], end, start, *parts[3], stop, *parts[4]]


def test_a_system_message_of_the_template_itself_and_results_of_tools_are_kept():
    found, notes = recognized(QWEN, THEIRS["qwen"])
    assert found.system == "You are helpful." and found.end == "<|im_end|>"
    assert found.turns["tool"] == ("<|im_start|>user\n<tool_response>\n", "\n</tool_response><|im_end|>\n")
    assert notes == ["it writes no begin token, which gptjax puts before each conversation"]


CHATML = load_template("chatml").jinja(generation=False)
UNLIKE = {
    "messages in upper case": CHATML.replace("message['content']", "message['content'] | upper"),
    "only the last message": CHATML.replace("in messages", "in messages[-1:]"),
    "numbers of messages": CHATML.replace("message['content']", "loop.index ~ message['content']"),
    "an answer that nothing ends": CHATML.replace("<|im_end|>", ""),
    "no system message": "{% if messages[0].role == 'system' %}{{ raise_exception('none') }}{% endif %}" + CHATML,
    "a text at the beginning": "{{ 'Hello' }}" + CHATML,
    "text that depends on the answer": CHATML.replace("message['content'] +", "message['content'].split('b')[0] +"),
    "no Jinja": "{% if %}",
    "the inside of Python": "{{ ''.__class__.__mro__[1].__subclasses__() }}" + CHATML,
    "nothing": "",
}


@pytest.mark.parametrize("source", UNLIKE.values(), ids=UNLIKE)
def test_a_template_that_writes_something_else_is_not_taken(source):
    found, (why,) = recognized(source, BYTES)
    assert found is None and why.startswith("the folder's chat template is not recognized: ")


DOUBLED = "{% set n = namespace(x='ab') %}{% for i in range(40) %}{% set n.x = n.x ~ n.x %}{% endfor %}"
HUGE = ("'x' * 10 ** 10", "'%9999999999d' % 1", "'{:9999999999}'.format(1)", "'x'.ljust(9999999999)")


@pytest.mark.skipif(not os.path.exists("/proc/self/statm"), reason="the limit is only known on Linux")
@pytest.mark.parametrize("source", [DOUBLED, *(f"{{% set huge = {each} %}}" for each in HUGE)])
def test_a_template_that_writes_a_huge_text_is_stopped(source):
    before = resource.getrlimit(resource.RLIMIT_AS)
    found, (why,) = recognized(source + CHATML, BYTES)
    assert found is None and ("MemoryError" in why or "OverflowError" in why)
    assert resource.getrlimit(resource.RLIMIT_AS) == before


def test_a_template_that_does_not_end_is_stopped(monkeypatch):
    monkeypatch.setattr(recognizing, "SECONDS", 0.2)
    loop = "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}"
    found, (why,) = recognized(loop + CHATML, BYTES)
    assert found is None and "TimeoutError" in why
    time.sleep(0.3)  # the alarm is off again
