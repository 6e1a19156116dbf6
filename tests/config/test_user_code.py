"""Errors in the user's own Python end in one sentence with the user's file and line."""

import re
import sys

import pytest

from gptjax.config import ConfigError, default
from gptjax.config.user_code import call_in_file, load_config, path_and_argument
from gptjax.corpus import config as corpus
from gptjax.sweeping.definition import load_sweep

CONFIG = """from gptjax.config import default
def get_config(arg='a'):
    config = default()
    {line}
    return config
"""
SWEEP = "from gptjax.sweeping import Sweep, over\ndef get_sweep():\n    {line}\n"


def load_corpus(text):
    return load_config(text, corpus.default)


def test_a_config_file_imports_others_in_its_folder(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "path", list(sys.path))
    (tmp_path / "shared_by_configs.py").write_text("WIDTH = 24\n")
    path = tmp_path / "mine.py"
    path.write_text(CONFIG.format(line="import shared_by_configs; config.model.width = shared_by_configs.WIDTH"))
    assert load_config(str(path)).model.width == 24
    monkeypatch.delitem(sys.modules, "shared_by_configs")


@pytest.mark.parametrize(
    "line, message",
    [
        ("config.model.wdith = 3", "line 4: unknown field model.wdith; did you mean model.width?"),
        ("config.modle.width = 3", "line 4: unknown field modle; did you mean model?"),
        ("config.optimizer.width = 3", "line 4: unknown field optimizer.width; did you mean model.width?"),
        ("config.model['wdith'] = 3", "line 4: unknown field model.wdith; did you mean model.width?"),
        ("x = 2 * config.model.wdith", "line 4: unknown field model.wdith; did you mean model.width?"),
        ("config.model.update(wdith=3)", "line 4: unknown field model.wdith; did you mean model.width?"),
        ("config.model.width = 'wide'", "line 4: model.width = 'wide': expected int, got str"),
        ("config.seed = 1.5", "line 4: seed = 1.5: expected int, got float"),
        ("config.model.width = = 3", "line 4: invalid syntax, in 'config.model.width = = 3'"),
        ("config.model.width = (", "line 4: '(' was never closed"),
        ("1 / 0", "line 4: ZeroDivisionError: division by zero"),
        ("widht", "line 4: NameError: name 'widht' is not defined"),
        ("import no_such_module", "line 4: ModuleNotFoundError: No module named 'no_such_module'"),
        ("import sys; sys.exit(3)", "line 4: it ends the program with exit status 3"),
        ("raise SystemExit", "line 4: it ends the program with exit status None"),
        ("get_config(1, 2, 3)", "line 4: TypeError: get_config() takes from 0 to 1 positional arguments"),
        ("return", "get_config() returned nothing; is 'return' missing at its end?"),
        ("return {'model': {}}", "get_config() must return a ConfigDict, not a dict"),
        ("return get_config", "get_config() must return a ConfigDict, not a function"),
    ],
)
def test_an_error_in_a_config_file_names_file_and_line(tmp_path, line, message):
    path = tmp_path / "mine.py"
    path.write_text(CONFIG.format(line=line))
    with pytest.raises(ConfigError) as caught:
        load_config(str(path))
    assert str(caught.value).startswith(str(path)) and message in str(caught.value)
    assert "\n" not in str(caught.value) and len(str(caught.value)) < len(str(path)) + 160


@pytest.mark.parametrize(
    "text, message",
    [
        ("def get_config(: pass", "line 1: invalid syntax"),
        ("def get_confg(): pass", "must define get_config(); did you mean get_confg?"),
        ("get_config = 3", "must define get_config()"),
        ("def get_config(size): return size", "get_config(size) needs an argument, as in "),
        ("import sys\nsys.exit()", "line 2: it ends the program"),
        ("\x00", "null bytes"),
        ("'\udcff'", "line 1"),
    ],
)
def test_an_error_outside_of_get_config(tmp_path, text, message):
    path = tmp_path / "mine.py"
    path.write_bytes(text.encode("utf-8", "surrogateescape"))
    with pytest.raises(ConfigError) as caught:
        load_config(str(path))
    assert message in str(caught.value) and str(path) in str(caught.value)


def test_the_argument_after_the_colon(tmp_path):
    with_argument, without = tmp_path / "a:b.py", tmp_path / "none.py"
    with_argument.write_text(CONFIG.format(line="config.model.width = {'a': 384, 'b:c': 12}[arg]"))
    without.write_text("from gptjax.config import default\nget_config = lambda: default()\n")
    assert path_and_argument("x.py:a:b") == ("x.py", "a:b") and path_and_argument("x.py") == ("x.py", None)
    assert load_config(f"{with_argument}:b:c").model.width == 12
    with pytest.raises(ConfigError, match=r"none\.py:d: get_config\(\) takes no argument"):
        load_config(f"{without}:d")


@pytest.mark.parametrize(
    "line, message",
    [
        (
            "config.model.width = {'small': 384, 'large': 768}[arg]",
            "'larg': expected one of small, large; did you mean",
        ),
        ("config.model.width = SIZES[arg]", "'larg': expected one of small, large; did you mean large?"),
        ("sizes = dict(a=1, b=2); config.model.width = sizes[arg]", "'larg': expected one of a, b"),
        ("config.model.width = {'é': 384}[arg]; config.seed = 1", "'larg': expected one of é"),
        ("config.model.width = {}[arg]", "KeyError: 'larg' (its argument is 'larg')"),
        ("raise KeyError(arg)", "KeyError: 'larg' (its argument is 'larg')"),
        ("config.model.width = {'a': 384}.pop(arg)", "KeyError: 'larg' (its argument is 'larg')"),
        ("config.model.width = {'small': 1,\n        'large': 2}[arg]", "KeyError: 'larg' (its argument is 'larg')"),
    ],
)
def test_for_an_unknown_size_the_sizes_of_the_file_are_listed(tmp_path, line, message):
    path = tmp_path / "mine.py"
    path.write_text("SIZES = {'small': 4, 'large': 8}\n" + CONFIG.format(line=line))
    with pytest.raises(ConfigError, match=re.escape(f"{path}, line 5: {message}")):
        load_config(f"{path}:larg")


@pytest.mark.parametrize(
    "typed, like",
    [
        ("mine/stdlib_tinny.py", "mine/stdlib_tiny.py"),  # in the same folder
        ("mine/stdlib_tiny", "mine/stdlib_tiny.py"),
        ("configs/stdlib_tinny.py", "configs/stdlib_tiny.py"),
        ("stdlib_tiny.py", "configs/stdlib_tiny.py"),  # without its folder
        ("stdlib_tiny", "configs/stdlib_tiny.py"),
        ("gpt2:124m", "configs/gpt2.py:124m"),  # without its suffix
        ("configs/gtp2.py:124m", "configs/gpt2.py:124m"),
        ("books_and_code.py", "configs/corpus/books_and_code.py"),
        ("../stdlib_tiny.py", "configs/stdlib_tiny.py"),
        ("gpt2/124m", None),
        ("zebra.py", None),
        ("", None),
    ],
)
@pytest.mark.parametrize("has_configs", [True, False])
def test_for_a_missing_file_the_most_similar_one_is_suggested(tmp_path, monkeypatch, typed, like, has_configs):
    """Suggests from the configs of the current folder, or else from those of the package."""
    monkeypatch.chdir(tmp_path)
    made = ["mine/stdlib_tiny.py", "configs/stdlib_tiny.py", "configs/gpt2.py", "configs/corpus/books_and_code.py"]
    for name in made if has_configs else made[:1]:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    with pytest.raises(ConfigError) as caught:
        load_config(typed)
    problem, _, suggested = str(caught.value).partition("; did you mean ")
    if has_configs or not (like or "").startswith("configs/"):
        assert suggested == (f"{like}?" if like else "")
    else:
        assert (
            suggested.endswith(f"/{like}?") and (tmp_path / suggested.partition(".py")[0]).with_suffix(".py").exists()
        )
    assert problem.startswith(f"there is no file {typed.partition(':')[0]}") or not typed


def test_a_folder_or_another_file_is_not_a_config_file(tmp_path):
    (tmp_path / "config.txt").write_bytes(b"\0\xff")
    with pytest.raises(ConfigError, match=f"^{tmp_path} is a folder, not a Python file$"):
        load_config(str(tmp_path))
    with pytest.raises(ConfigError, match=r"config\.txt: must be a Python file, whose name ends in \.py$"):
        load_config(f"{tmp_path}/config.txt")


def test_a_run_is_not_a_config_file_and_the_message_says_how_it_continues(tmp_path):
    (tmp_path / "config.json").write_text('{"seed": true}')
    for text in (tmp_path, tmp_path / "config.json"):
        with pytest.raises(ConfigError, match=f"; the run continues with the config .* and --workdir={tmp_path}$"):
            load_config(str(text))


@pytest.mark.parametrize(
    "line, message",
    [
        (
            "config.tokenizer.vocabsize = 3",
            "line 4: unknown field tokenizer.vocabsize; did you mean tokenizer.vocab_size?",
        ),
        ("config.cleaning.gopher_quality.min_word = 3", "field cleaning.gopher_quality.min_word; did you mean"),
        ("config.sources = 'books'", "line 4: sources = 'books': expected tuple, got str"),
        ("config.sources = (source(kind='text', path='x'),)", "line 4: TypeError: source() missing 1 required"),
    ],
)
def test_an_error_in_a_corpus_config(tmp_path, line, message):
    path = tmp_path / "mine.py"
    path.write_text(
        CONFIG.format(line=line).replace("gptjax.config import default", "gptjax.corpus.config import default, source")
    )
    with pytest.raises(ConfigError) as caught:
        load_corpus(str(path))
    assert message in str(caught.value)


@pytest.mark.parametrize(
    "line, message",
    [
        ("Sweep('c.py', over('model.wdith', [1]))", "line 3: sweep: unknown field model.wdith"),
        ("Sweep('c.py', over('model.width', [1]))", "get_sweep() returned nothing"),
        ("return over('model.width', [1])", "get_sweep() must return a Sweep, not a list"),
        ("return Sweep('c.py', [1])", "the sweep's points hold 1"),
        ("return Sweep('c.py', 1)", "the sweep's points = 1: must be a list of points"),
        ("return Sweep(1, [])", "the sweep's config = 1: must be a file"),
        ("return Sweep('c.py', [], x=None)", "the sweep's x = None: must be a field, or '' for no plot"),
        ("return Sweep('c.py', over('model.width', [1]), x='model.wdith')", "; did you mean model.width?"),
        ("return Sweep('c.py', over('seed', [1]), x='seed')", "its points set, and not seed (they set none)"),
        (
            "return Sweep('c.py', over('model.width', [1]), x='model.num_layers')",
            "the sweep's x = 'model.num_layers': must be one of the fields that its points set, and not seed",
        ),
        (
            "return Sweep('c.py', over('optimizer.name', ['adamw']), x='optimizer.name')",
            "the sweep's x = 'optimizer.name': must be a field whose values are numbers; a point sets it to 'adamw'",
        ),
        ("exit(0)", "line 3: it ends the program with exit status 0"),
        ("return Sweep(", "line 3: '(' was never closed"),
    ],
)
def test_an_error_in_a_sweep_file(tmp_path, line, message):
    path = tmp_path / "sweep.py"
    path.write_text(SWEEP.format(line=line))
    with pytest.raises(ConfigError) as caught:
        load_sweep(str(path))
    assert message in str(caught.value) and str(path) in str(caught.value)


def test_a_config_error_that_a_file_raises_is_unchanged(tmp_path):
    path = tmp_path / "mine.py"
    path.write_text("from gptjax.config import ConfigError\ndef get_config(): raise ConfigError('expected a or b')\n")
    with pytest.raises(ConfigError, match=r"^expected a or b$"):
        load_config(str(path))


def test_the_result_of_the_function_is_returned(tmp_path):
    path = tmp_path / "mine.py"
    path.write_text(CONFIG.format(line="config.model.width = 12"))
    config = call_in_file(str(path), "get_config", type(default()))
    assert config.model.width == 12
