"""The sample command, tested on a tiny run whose checkpoints are made here."""

import functools
import json
import os
import re
import shutil
import subprocess
import sys
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import pytest
from commands import run_command
from waiting import PATIENCE

from gptjax import config as configs
from gptjax import sample as command
from gptjax.inference.generate import Generator
from gptjax.model.families import family_of
from gptjax.settings import freeze, thaw
from gptjax.tokenizer import ByteTokenizer, CharacterTokenizer
from gptjax.training.checkpoints.manager import Checkpoints
from gptjax.training.checkpoints.run_metadata import run_metadata
from gptjax.training.state import TrainState

pytestmark = pytest.mark.slow

TOKENIZER = ByteTokenizer()
STEPS = {10: 3.0, 20: 2.0, 30: 2.5}  # step → validation loss


@functools.cache
def params_of(config, step):
    return jax.tree.map(lambda x: 8 * x, family_of(config.model).init_params(jax.random.key(step)))


@pytest.fixture(scope="module")
def run(tmp_path_factory, module_tiny_config):
    """A workdir with a config and three checkpoints that have a moving average."""
    workdir = tmp_path_factory.mktemp("run") / ("long" * 50)  # must be shown in one line
    workdir.mkdir(parents=True)
    save_run(workdir, module_tiny_config)
    return workdir, module_tiny_config


def save_run(workdir, config):
    (workdir / "config.json").write_text(configs.to_json(config))
    TOKENIZER.save(workdir)
    checkpoint = configs.default().checkpoint
    checkpoint.keep_latest = len(STEPS)
    with Checkpoints(workdir, checkpoint, int) as checkpoints:
        for step, loss in STEPS.items():
            params = params_of(config, step)
            ema = jax.tree.map(jnp.negative, params)
            state = TrainState(step=jnp.int32(step), params=params, opt_state=(), ema=ema, monitor={})
            fingerprint = {"tokenizer_hash": TOKENIZER.hash, "begin_id": TOKENIZER.bos_id}
            metadata = run_metadata(config, fingerprint, tokens=step)
            checkpoints.save(step, state, metadata, {"validation/loss": loss})


@pytest.fixture(scope="module")
def module_tiny_config():
    config = configs.default()
    config.model.update(num_layers=1, width=16, num_heads=2, num_kv_heads=2, head_width=8, feedforward_width=32)
    config.model.update(vocab_size=TOKENIZER.vocab_size, max_positions=64, dtype="float32", layers="unroll")
    config.model.update(attention="xla", attention_block=64)
    config.data.sequence_length = 64
    configs.validate(config)
    return freeze(config)


def sample(*arguments, check=True, **options):
    """options: of a new process; without options, it is forked from a process that has imported everything."""
    if options:
        command = [sys.executable, "-m", "gptjax.sample", *arguments]
        options = dict(stdin=subprocess.DEVNULL, env=os.environ | {"COLUMNS": "200"}) | options
        done = subprocess.run(command, capture_output=True, encoding="utf-8", **options)
    else:
        done = run_command("sample", *arguments, COLUMNS="200")
    assert not check or done.returncode == 0, done.stderr
    return done


@functools.cache
def generator_of(config, step, ema=True, weights=None):
    params = params_of(config, step)
    params = jax.tree.map(jnp.negative, params) if ema else params
    return Generator(params, config, TOKENIZER, begin_id=TOKENIZER.bos_id, weights=weights)


def expected(config, step, prompts, ema=True, weights=None, **options):
    return generator_of(config, step, ema, weights).generate(prompts, **options)


def test_weights_in_8_bits(run):
    workdir, config = run
    options = dict(max_new_tokens=20, temperature=0.0)
    done = sample(f"--workdir={workdir}", "--prompt=def ", "--max_new_tokens=20", "--temperature=0", "--weights=int8")
    (completion,) = expected(config, 30, ["def "], weights="int8", **options)
    assert done.stdout == "def " + completion.text + "\n"
    assert "int8 on cpu" in done.stderr


def test_the_latest_checkpoint_continues_a_prompt_on_stdout(run):
    workdir, config = run
    done = sample(f"--workdir={workdir}", "--prompt=def [b]f", "--max_new_tokens=20", "--temperature=0")
    (completion,) = expected(config, 30, ["def [b]f"], max_new_tokens=20, temperature=0.0)
    assert done.stdout == "def [b]f" + completion.text + "\n"
    assert f"{workdir}: step 30 (latest, moving average of " in done.stderr
    assert "9 prompt tokens, 20 new · " in done.stderr and " new tokens/s, prompts included" in done.stderr


def test_a_function_that_a_run_names_is_imported_only_with_permission(run, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    # The folder of the run brings its own module.
    named = configs.to_json(run[1]).replace('"swiglu"', '"brought_along:make"')
    (tmp_path / "brought_along.py").write_text("open('mark', 'w').close()\ndef make(gate, up): return gate * up\n")
    save_run(tmp_path, configs.from_json(named))
    (tmp_path / "mark").unlink()  # the module of its training, in the current folder
    command = ["--workdir=.", "--prompt=a", "--max_new_tokens=1"]
    refused = sample(*command, check=False, cwd=tmp_path)
    assert refused.returncode == 2 and len(refused.stderr.splitlines()) == 1
    for said in ("config.json", "model.feedforward = 'brought_along:make'", "--own_functions"):
        assert said in refused.stderr
    assert not (tmp_path / "mark").exists()
    sample(*command, "--own_functions", cwd=tmp_path)
    assert (tmp_path / "mark").exists()


def test_json_contains_what_generate_returns(run, tmp_path):
    workdir, config = run
    (tmp_path / "prompts.jsonl").write_text('"a\\nb"\n"é"\n')
    done = sample(
        *(f"--workdir={workdir}", f"--prompts_file={tmp_path / 'prompts.jsonl'}", "--checkpoint=best", "--seed=5"),
        *("--num_samples=2", "--max_new_tokens=12", "--temperature=1.1", "--top_k=40", "--top_p=0.9", "--min_p=0.01"),
        *("--repetition_penalty=1.2", r"--stop=\nq", "--stop=zz", "--escapes", f"--json={tmp_path / '[b]:x:.json'}"),
    )
    assert re.search(r"ended (\d by [a-z_ ]+(, |\n))+", done.stderr)
    assert f"4 completions in {tmp_path}/[b]:x:.json" in done.stderr
    content = json.loads((tmp_path / "[b]:x:.json").read_text())
    settings = dict(temperature=1.1, top_k=40, top_p=0.9, min_p=0.01, repetition_penalty=1.2, stop=["\nq", "zz"])
    completions = expected(config, 20, ["a\nb", "é"], num_samples=2, max_new_tokens=12, seeds=5, **settings)
    assert [c["tokens"] for c in content["completions"]] == [c.tokens for c in completions]
    assert [c["prompt"] for c in content["completions"]] == ["a\nb", "a\nb", "é", "é"]
    assert [c["seed"] for c in content["completions"]] == [5, 6, 5, 6]
    assert content["options"] == settings | {"max_new_tokens": 12, "begin": True}
    assert all(len(c["logprobs"]) == len(c["tokens"]) for c in content["completions"])
    assert content["ema"] is True


def test_a_beam_search_prints_its_best_texts(run, tmp_path):
    workdir, config = run
    options = ["--num_beams=3", "--num_samples=2", "--length_penalty=1", "--max_new_tokens=6"]
    done = sample(f"--workdir={workdir}", "--prompt=def ", *options, f"--json={tmp_path}/texts.json")
    texts = generator_of(config, 30).search(["def "], num_beams=3, num_samples=2, length_penalty=1.0, max_new_tokens=6)
    assert done.stdout == f"def {texts[0].text}\n{'─' * 40}\ndef {texts[1].text}\n"
    written = json.loads((tmp_path / "texts.json").read_text())
    assert [each["score"] for each in written["completions"]] == pytest.approx([each.score for each in texts], rel=1e-4)
    assert written["options"] == dict(begin=True, max_new_tokens=6, num_beams=3, length_penalty=1.0)


def test_a_prompt_is_used_as_typed_and_the_reason_of_the_end_is_printed(run):
    workdir, config = run
    prompt, stop = r"\newcommand{\x41}", r"\nq"
    options = dict(max_new_tokens=60, temperature=0.0)
    done = sample(
        f"--workdir={workdir}", f"--prompt={prompt}", f"--stop={stop}", *("--max_new_tokens=60", "--temperature=0")
    )
    (completion,) = expected(config, 30, [prompt], stop=stop, **options)
    assert done.stdout == prompt + completion.text + "\n"
    assert completion.finish_reason == "context" and "ended by the end of the context\n" in done.stderr


def test_characters_without_a_token_are_reported(run, tmp_path):
    workdir = shutil.copytree(run[0], tmp_path / "characters", symlinks=True)
    tokens = CharacterTokenizer("".join(map(chr, range(32, 127))))
    tokens.save(workdir)
    assert tokens.vocab_size <= TOKENIZER.vocab_size
    for path in workdir.rglob("*"):  # the tokenizer that the checkpoints name
        if path.is_file() and TOKENIZER.hash.encode() in (content := path.read_bytes()):
            path.write_bytes(content.replace(TOKENIZER.hash.encode(), tokens.hash.encode()))
    done = sample(f"--workdir={workdir}", "--prompt=héllo ø é", "--max_new_tokens=3", check=False)
    assert "prompt 'héllo ø é': the tokenizer has no token for 'éø', so the model reads <unk> instead" in done.stderr


def test_a_stream_prints_the_same_text(run):
    workdir, config = run
    options = [f"--workdir={workdir}", "--checkpoint=10", "--noema", "--max_new_tokens=30", "--num_samples=2"]
    done = sample(*options, "--prompt=-", "--top_p=1", "--stream", stdin=None, input="x\t= ")
    completions = expected(config, 10, ["x\t= "], ema=False, num_samples=2, max_new_tokens=30, temperature=0.8)
    assert done.stdout == ("─" * 40 + "\n").join("x\t= " + completion.text + "\n" for completion in completions)
    assert "step 10 (" in done.stderr and " raw parameters)" in done.stderr


@pytest.mark.skipif(sys.platform == "win32", reason="pseudo-terminals are POSIX")
def test_prompts_can_be_typed_in_a_terminal(run):
    import pty

    workdir, _ = run
    controller, terminal = pty.openpty()
    command = [sys.executable, "-m", "gptjax.sample", f"--workdir={workdir}", "--max_new_tokens=5"]
    with subprocess.Popen(
        command, stdin=terminal, stdout=subprocess.PIPE, stderr=subprocess.PIPE, encoding="utf-8"
    ) as process:
        os.write(controller, b"first\n" + b"y" * 65 + b"\nno\xfftext\nsecond\n\x04")
        output, notes = process.communicate(timeout=PATIENCE)
    assert process.returncode == 0, notes
    assert "first" in output and "second" in output
    assert "prompt = 66 tokens" in notes and r"prompt = 'no\udcfftext': must be UTF-8 text" in notes
    assert len(re.findall(r"prefill \S+ tokens/s · decode \S+ tokens/s", notes)) == 2


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["--prompt=a"], "--workdir is missing"),
        (["--workdir=RUN"], "--prompt or --prompts_file is required"),
        (["--workdir=RUN", "--prompt=" + "x" * 65], "prompt = 66 tokens with the begin token: .*max_positions = 64"),
        (["--workdir=RUN", b"--prompt=a\xff"], r"--prompt='a\\udcff': must be UTF-8 text"),
        (["--workdir=RUN", "--prompt=a", b"--stop=\xff"], r"--stop='\\udcff': must be UTF-8 text"),
        (
            ["--workdir=RUN", "--prompt=a", "--checkpoint=²"],
            "--checkpoint=²: must be latest, best or the number of a step",
        ),
        (
            ["--workdir=RUN", "--prompt=a", "--temperature=-1"],
            r"--temperature=-1\.0: must be 0 \(greedy\) or a positive number",
        ),
        (
            ["--workdir=RUN", "--prompt=a", "--num_beams=2", "--seed=1"],
            "--seed=1: must not be given together with --num",
        ),
        (
            ["--workdir=RUN", "--prompt=a", "--length_penalty=1"],
            "--length_penalty=1.0: must not be given without --num",
        ),
        (["--workdir=RUN", "--prompt=a", "--checkpoint=17"], "--checkpoint=17: must be .*10, 20, 30"),
        (["--workdir=RUN", "--prompts_file=nowhere.txt"], "--prompts_file=nowhere.txt: .*No such file"),
        (["--workdir=nowhere", "--prompt=a"], "--workdir=nowhere: must be the folder of a run; there is no such"),
        (["--workdir=configs", "--prompt=a"], "--workdir=configs: .*this folder has no config.json"),
    ],
)
def test_user_errors_end_in_one_line(run, arguments, message):
    refuses(message, *(arg.replace("RUN", str(run[0])) if isinstance(arg, str) else arg for arg in arguments))


@pytest.mark.parametrize(
    "flag, allowed",
    [
        ("temperature=-1", "0 (greedy) or a positive number up to 1e30"),
        ("top_k=-1", "0 (off) or a positive integer"),
        ("top_k=99999999999999999999", "0 (off) or a positive integer"),
        ("top_p=0", "above 0 and at most 1 (off)"),
        ("min_p=1.5", "from 0 (off) to 1"),
        ("repetition_penalty=0", "a number from 1e-30 to 1e30 (1: off)"),
        ("seed=-1", "an integer from 0 to 2^32 - 1"),
        ("seed=4294967296", "an integer from 0 to 2^32 - 1"),
        ("checkpoint=newest", "latest, best or the number of a step"),
        ("stop=", "must have at least one character"),
        ("max_new_tokens=0", "a positive integer"),
        ("batch_size=0", "a positive integer"),
    ],
)
def test_values_are_checked_before_the_run_is_read(flag, allowed, tmp_path):
    (tmp_path / "config.json").touch()  # all that is looked at before
    done = run_command("sample", f"--workdir={tmp_path}", "--prompt=a", f"--{flag}")
    name, _, value = flag.partition("=")
    assert done.returncode == 2 and done.stderr.startswith(f"error: --{name}=")
    assert value in done.stderr and allowed in done.stderr


def test_the_last_seed_must_be_valid(tmp_path):
    (tmp_path / "config.json").touch()
    done = run_command("sample", f"--workdir={tmp_path}", "--prompt=a", "--seed=4294967295", "--num_samples=2")
    assert done.stderr == "error: --num_samples=2: the last seed would be 4294967296: must be below 2^32\n"


def refuses(message, *arguments, **options):
    done = sample(*arguments, check=False, **options) if options else run_command("sample", *arguments)
    assert done.returncode == 2, done.stderr
    assert "Traceback" not in done.stderr
    line = done.stderr.splitlines()[-1]
    assert re.search(message, line), line


@pytest.mark.parametrize(
    "name, content, message",
    [
        ("prompts.txt", b"a\n\xff\n", r"prompts\.txt: must be UTF-8 text .*position 2"),
        ("prompts.jsonl", b'"a"\n"\\ud800"\n', r"prompts\.jsonl: prompt 2 = '\\ud800': must be UTF-8 text"),
        ("prompts.jsonl", b"7\n", r"prompts\.jsonl: must hold .* nothing but strings"),
    ],
)
def test_a_file_that_is_not_text_is_refused(run, tmp_path, name, content, message):
    (tmp_path / name).write_bytes(content)
    refuses(message, f"--workdir={run[0]}", f"--prompts_file={tmp_path / name}")


def test_standard_input_that_is_not_text_is_refused(run, tmp_path):
    (tmp_path / "input").write_bytes(b"a\xff")
    with open(tmp_path / "input", "rb") as file:
        refuses("--prompt=-: standard input must be UTF-8", f"--workdir={run[0]}", "--prompt=-", stdin=file)


def test_a_folder_with_mismatched_parts_is_refused(run, tmp_path):
    workdir, config = run
    other = shutil.copytree(workdir, tmp_path / "other")
    ByteTokenizer(("<bos>", "<eos>", "<unk>", "<pad>")).save(other)
    refuses(f"--workdir=.*hash {TOKENIZER.hash}", f"--workdir={other}", "--prompt=a")
    deeper = thaw(config)
    deeper.model.num_layers = 2
    (other / "config.json").write_text(configs.to_json(deeper))
    refuses(r"config\.json: model\.num_layers = 2: must be 1", f"--workdir={other}", "--prompt=a")


def test_few_texts_are_generated_in_small_batches(monkeypatch):
    """A generator with a small batch stores its matrices for few rows."""

    def rows(prompts, **given):
        for name, value in (dict(STREAM=False, NUM_SAMPLES=1, NUM_BEAMS=0, BATCH_SIZE=32) | given).items():
            monkeypatch.setattr(command, name, SimpleNamespace(value=value))
        return command.rows_at_once(prompts)

    assert rows(["a"]) == rows(None) == rows(["a", "b"], STREAM=True, NUM_SAMPLES=3) == 1
    assert rows(["a", "b"], NUM_SAMPLES=3) == 6
    assert rows(["a", "b"], NUM_SAMPLES=3, BATCH_SIZE=4) == 4
    assert rows(None, NUM_BEAMS=4) == 4 and rows(["a", "b"], NUM_BEAMS=4) == 8
