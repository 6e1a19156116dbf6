"""The chat command: a trained run answers the lines of a pipe; commands change what the next answer depends on."""

import io
import json
import os
import subprocess
import sys
from types import SimpleNamespace

import pytest
from commands import REPOSITORY, run_command
from conversation_folder import random_conversations, write_conversations
from training_runs import train_run

from gptjax import chat as chat_command
from gptjax.config import ConfigError, default
from gptjax.conversation import Renderer, load_template, messages_of
from gptjax.display.terminal import Console
from gptjax.inference.chat import Chat
from gptjax.inference.chat_terminal import CHANGED, Adapters, Terminal
from gptjax.runs import trained_model
from gptjax.settings import freeze
from gptjax.tokenizer import ByteTokenizer
from gptjax.training.checkpoints.loading import load_for_inference


class Screen(Console):
    def __init__(self):
        super().__init__(file=io.StringIO(), width=1000)

    def shown(self):
        """What was printed since the last call."""
        text = self.file.getvalue()
        self.file.truncate(self.file.seek(0))
        return text


@pytest.fixture
def terminal():
    """A Terminal whose model answers with the options that it was given, and its two screens."""

    class Model:
        config, begin_id = SimpleNamespace(max_positions=400), 2

        def stream(self, prompt, **options):
            yield f"{options['seed']} {options['temperature']}"
            return SimpleNamespace(finish_reason=self.reason)

    model, output, notes = Model(), Screen(), Screen()
    model.reason = "eos"
    chat = Chat(model, Renderer(load_template("turns"), ByteTokenizer()))
    settings = {"temperature": 0.5, "top_p": 1.0, "top_k": 0, "min_p": 0.0, "repetition_penalty": 1.0}
    settings |= {"max_new_tokens": 20, "seed": 7}
    assert list(settings) == list(CHANGED)

    def answering(name):
        other = Model()
        other.reason, other.stream = "eos", lambda prompt, **options: answers(name)
        return other

    def answers(name):
        yield name
        return SimpleNamespace(finish_reason="eos")

    made = Terminal(chat, settings, "title", output, notes, Adapters(["poems", "runs/letters"], answering))
    made.model = model
    return made, output, notes


def test_commands(terminal, tmp_path):
    made, output, notes = terminal
    for line in ("Hi", "//slash", "  ", "/Temperature=0.9", "/seed 1", "/retry", "/undo"):
        made.take(line)
    assert output.shown() == "7 0.5\n8 0.5\n3 0.9\n"  # the third answer of seed 1 + 2
    assert [message.content for message in made.chat.messages] == ["Hi", "7 0.5"]
    assert notes.shown() == "temperature 0.9\nseed 1\ntaken back: /slash\n"
    made.take(f"/save {tmp_path}/chat.jsonl")
    assert messages_of(json.loads((tmp_path / "chat.jsonl").read_text())) == made.chat.messages
    made.take("/history")
    shown = notes.shown()
    assert "user: Hi\nassistant: 7 0.5\n" in shown and "tokens of 400" in shown
    made.take("/system Be brief.")
    assert made.chat.system == "Be brief." and made.chat.messages == []
    made.take("/system none")
    assert made.chat.system == ""
    for line in ("Hi", "/clear", "/undo", "/settings", "/"):
        made.take(line)
    shown = notes.shown()
    assert made.chat.messages == [] and "there is nothing to take back" in shown
    assert "title, adapter poems, context 400 tokens" in shown and "max_new_tokens 20" in shown
    assert all(f"/{name}" in shown for name in made.commands)
    made.take("/exit")
    assert made.ended


def test_another_adapter_answers(terminal):
    made, output, notes = terminal
    for line in ("Hi", "/adapter", "/adapter runs/letters", "Hi", "/settings", "/adapter poems", "/retry"):
        made.take(line)
    assert output.shown() == "7 0.5\nruns/letters\npoems\n"
    shown = notes.shown()
    assert shown.startswith("poems (answers), runs/letters\npoems, runs/letters (answers)\ntitle, adapter runs/letters")
    assert len(made.chat.messages) == 4  # the conversation goes on


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("/tempature 1", "did you mean /temperature?"),
        ("/system " + "x" * 400, "system = 4"),
        ("/temperature -1", "temperature = -1.0: must be"),
        ("/top_k many", "/top_k many: must be a number"),
        ("/max_new_tokens 0", "max_new_tokens = 0"),
        ("/save", "/save needs"),
        ("/save nowhere/chat.jsonl", "/save"),
        ("/retry", "no message yet"),
        ("/adapter poem", "must be one of poems, runs/letters; did you mean poems?"),
        ("x" * 400, "must be at most"),
        ("\udcff", "must be UTF-8"),
    ],
)
def test_mistakes_are_said_and_change_nothing(terminal, line, message):
    made, output, notes = terminal
    before = dict(made.settings)
    made.take(line)
    assert message in notes.shown() and output.shown() == "" and made.settings == before and made.chat.messages == []


def test_an_answer_that_was_cut_off_says_why(terminal):
    made, _, notes = terminal
    made.model.reason = "max_new_tokens"
    made.take("Hi")
    assert "cut off by the limit of 20 tokens" in notes.shown()
    for _ in range(40):
        made.take("Hi")
    assert "the context is full: the model did not read the first" in notes.shown()


@pytest.mark.parametrize(("said", "kept"), [("", 0), ("Well", 2)])
def test_ctrl_c_keeps_what_was_said_and_takes_an_unanswered_message_back(terminal, said, kept):
    made, output, notes = terminal

    def interrupted(prompt, **options):
        if said:
            yield said
        raise KeyboardInterrupt

    made.model.stream = interrupted
    made.take("Hi")
    assert output.shown() == f"{said}\n" and [message.content for message in made.chat.messages] == ["Hi", said][:kept]
    assert ("the message is taken back" in notes.shown()) == (not said)


def test_a_run_answers_the_lines_of_a_pipe_also_with_an_adapter(tmp_path, monkeypatch, capsys):
    folder, _ = write_conversations(tmp_path / "data", random_conversations(30, words=3), template="turns")
    config = default()
    config.model.update(num_layers=1, width=16, num_heads=2)
    config.data.update(path=str(folder), sequence_length=128)
    config.training.update(objective="instruction", duration="1 steps", batch_size=8)
    config.evaluation.every = ""
    config.logging.update(tensorboard=False, plots=False)
    train_run(freeze(config), tmp_path / "run")
    typed = "Hello \\\nyou\n/temperature 0\nAgain\n/tempature\n/quit\nnever\n"
    done = subprocess.run(
        [sys.executable, "-m", "gptjax.chat", f"--workdir={tmp_path}/run", "--max_new_tokens=3"],
        cwd=REPOSITORY,
        env=os.environ | {"JAX_PLATFORMS": "cpu"},
        input=typed,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("\n") >= 2 and "never" not in done.stdout
    assert "template turns, context 128 tokens" in done.stderr and "no such command" in done.stderr
    assert "> Hello\nyou\n" in done.stderr and "> Again\n" in done.stderr
    assert done.stderr.count("cut off by the limit of 3 tokens") + done.stdout.count("\n") >= 2

    config.model.update(lora_rank=2, lora_alpha=50.0)
    config.training.init_from = str(tmp_path / "run")
    config.optimizer.learning_rate = 0.1
    config.training.duration = "3 steps"
    train_run(freeze(config), tmp_path / "run" / "adapters" / "odd")
    drawing = ["--temperature=0", "--max_new_tokens=6"]

    def said(*flags, typed="Hello\n"):
        capsys.readouterr()
        monkeypatch.setattr(chat_command.sys, "stdin", io.StringIO(typed))
        chat_command.flags.parse(["chat", *drawing, *flags])
        chat_command.main([])
        return capsys.readouterr()

    adapted = said(f"--workdir={tmp_path}/run", "--adapter=odd", typed="Hello\n/adapter odd\n")
    assert "adapter odd, context 128 tokens" in adapted.err and "odd (answers)" in adapted.err
    assert said(f"--workdir={tmp_path}/run/adapters/odd").out == adapted.out  # the run itself has the adapter, too
    assert said(f"--workdir={tmp_path}/run").out != adapted.out

    def of_a_run_on_text(*arguments):
        params, config, metadata = load_for_inference(*arguments)
        return params, config, metadata | {"fingerprint": metadata["fingerprint"] | {"template": {}}}

    monkeypatch.setattr(trained_model, "load_for_inference", of_a_run_on_text)
    assert said(f"--workdir={tmp_path}/run", "--adapter=odd").out == adapted.out  # by the template of the adapter
    with pytest.raises(ConfigError, match=r"not trained on conversations: .* configs/instructions\.py:"):
        said(f"--workdir={tmp_path}/run")
    with pytest.raises(ConfigError, match="--adapter=none: must be a folder"):
        said(f"--workdir={tmp_path}/run", "--adapter=odd", "--adapter=none")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "--workdir is missing"),
        (("--workdir=nowhere",), "--workdir=nowhere"),
        (("--workdir=RUN", "--top_p=3"), "--top_p=3"),
    ],
)
def test_what_cannot_be_is_refused(tmp_path, arguments, message):
    (tmp_path / "config.json").write_text("{}")  # looks like a run until the file is read
    done = run_command("chat", *[each.replace("RUN", str(tmp_path)) for each in arguments])
    assert done.returncode == 2 and message in done.stderr and "Traceback" not in done.stderr


def test_one_answer_at_a_time_is_generated(monkeypatch):
    """A generator with a small batch stores its matrices for few rows."""
    options, template = {}, load_template("turns").to_json()

    def generator(adapter=None, **given):
        options.update(given)
        return SimpleNamespace(weights="float32", config=SimpleNamespace(max_positions=400), begin_id=2)

    model = SimpleNamespace(adapters=lambda names: {}, fingerprint={"template": template}, tokenizer=ByteTokenizer())
    vars(model).update(metadata={"step": 1}, num_parameters=1, generator=generator)
    monkeypatch.setattr(chat_command, "load_trained_model", lambda *_: model)
    given = dict(WORKDIR="w", CHECKPOINT="latest", EMA=False, OWN_FUNCTIONS=False, MESH="", ADAPTER=None)
    for name, value in (given | dict(WEIGHTS=None, SYSTEM="")).items():
        monkeypatch.setattr(chat_command, name, SimpleNamespace(value=value))
    chat_command.load_chat()
    assert options["batch_size"] == 1
