"""Errors in a function that a config names end in one sentence with the field, and the user's file and line."""

import platform
import re
import sys
import types
import zipfile
from pathlib import Path

import jax
import pytest

from gptjax.config import ConfigError, default
from gptjax.config.named_functions import code_hash, named_function
from gptjax.corpus.cleaning import rules
from gptjax.model import feedforward
from gptjax.model.parameters import Parameter
from gptjax.training.optimizers import optimizer, schedule


@pytest.fixture
def module_here(tmp_path, monkeypatch):
    """Writes a module with a unique name into the current folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [entry for entry in sys.path if entry])

    def write(name, text):
        (tmp_path / f"{name}.py").write_text(text)
        sys.modules.pop(name, None)
        return name

    return write


def test_a_named_function_is_found_in_the_current_folder(module_here):
    name = module_here("ideas_found", "def one(x): return x + 1\n")
    assert named_function("model.feedforward", f"{name}:one", takes=(1, 2))(2) == 3
    name = module_here("ideas_default", "def one(x, power=2): return x**power\n")
    assert named_function("model.feedforward", f"{name}:one", takes=1)(3) == 9


def test_the_hash_is_that_of_the_code_that_was_imported(module_here):
    hashes = []
    for text in ("def one(x): return x\n", "def one(x): return x + 1\n"):
        name = module_here("ideas_hashed", text)
        named_function("model.feedforward", f"{name}:one")
        hashes.append(code_hash(f"{name}:one"))
        Path(f"{name}.py").write_text("# not the imported code\n")
        assert code_hash(f"{name}:one") == hashes[-1]
    assert hashes[0] != hashes[1]


def test_code_that_is_not_python_has_a_hash_or_a_version(tmp_path, monkeypatch):
    with zipfile.ZipFile(tmp_path / "wheel.zip", "w") as archive:
        archive.writestr("ideas_zipped.py", "def one(x): return x\n")
    monkeypatch.syspath_prepend(str(tmp_path / "wheel.zip"))
    named_function("schedule.name", "ideas_zipped:one", takes=1)
    assert re.fullmatch("[0-9a-f]{16}", code_hash("ideas_zipped:one"))
    named_function("schedule.name", "itertools:count")
    assert code_hash("itertools:count") == f"Python {platform.python_version()}"
    made = types.ModuleType("ideas_made_up")
    monkeypatch.setitem(sys.modules, "ideas_made_up", made)
    assert code_hash("ideas_made_up:f") == "unknown" and code_hash("never_imported:f") is None
    with pytest.raises(ConfigError, match="repeat does not say which arguments it takes"):
        named_function("schedule.name", "itertools:repeat", takes=1)


@pytest.mark.parametrize(
    "text, message",
    [
        ("no_such_ideas:make", "there is no module no_such_ideas in "),
        ("ideas_bad:mkae", "ideas_bad defines no function mkae; did you mean make?"),
        ("ideas_bad:path", "ideas_bad defines no function path"),  # imported there, not defined there
        ("ideas_bad:number", "ideas_bad defines no function number"),
        ("ideas_bad:make", r"make(a, b) must take 1 argument, which GUIDE.md describes"),
        ("ideas_bad:", "expected 'module:function'"),
        (":make", "expected 'module:function'"),
        ("../ideas_bad:make", "expected 'module:function'"),
        ("a:b:c", "expected 'module:function'"),
        ("ideas_broken:make", "ideas_broken.py, line 2: ZeroDivisionError"),
        ("ideas_syntax:make", "ideas_syntax.py, line 1: "),
        ("ideas_import:make", "ideas_import.py, line 1: No module named 'no_such_library'"),
        ("os:system", "os defines no function system"),
    ],
)
def test_an_invalid_name_is_refused_with_the_reason(module_here, text, message):
    module_here("ideas_bad", "from os import path\nnumber = 3\ndef make(a, b): pass\n")
    module_here("ideas_broken", "\n1 / 0\n")
    module_here("ideas_syntax", "def make(:\n")
    module_here("ideas_import", "import no_such_library\n")
    with pytest.raises(ConfigError) as caught:
        named_function("optimizer.name", text, takes=1)
    assert str(caught.value).startswith(f"optimizer.name = {text!r}: ") and message in str(caught.value)


OPTIMIZER = "import optax\ndef make(config):\n    return {made}\n"


@pytest.mark.parametrize(
    "field, text, message",
    [
        ("model.feedforward", "def make(x): return x[..., 0]", r"must map float32 \[1, 2, 8\] to the same"),
        (
            "model.feedforward",
            "def make(x): return 3",
            r"to the same shape and type, but returns",
        ),
        ("model.feedforward", "def make(x): return x.nothing", r"ideas\.py, line 1: AttributeError"),
        ("model.feedforward", "def make(x): return inner(x)\ndef inner(x): return x.no", r"ideas\.py, line 2: Attri"),
        ("model.feedforward", "def make(x, y, z): return x", r"make\(x, y, z\) must take 1 or 2 arguments"),
        ("schedule.name", "def make(update, run): return -1.0", r"update 1 has -0\.001"),
        ("schedule.name", "def make(update, run): return 1 / (run.total_steps - update)", r"update 50 has inf"),
        ("schedule.name", "def make(update, run): return run.lenght", r"line 1: AttributeError: 'Span' object has no"),
        ("schedule.name", "def make(update): return 1.0", r"make\(update\) must take 2 arguments"),
        (
            "optimizer.name",
            OPTIMIZER.format(made="None"),
            r"must return an optax\.GradientTransformation, not NoneType",
        ),
        ("optimizer.name", OPTIMIZER.format(made="optax.adam(config.speed)"), r"line 3: AttributeError"),
        (
            "optimizer.name",
            OPTIMIZER.format(made="optax.stateless(lambda u, p: 3)"),
            r"its update of embedding must be",
        ),
        ("optimizer.name", OPTIMIZER.format(made="1 / 0"), r"line 3: ZeroDivisionError"),
        ("cleaning.recipes", "def make(text): return 1", r"must return True or False, not 1"),
        ("cleaning.recipes", "def make(text): return text[0] == 'A'", r"line 1: IndexError: string index out of range"),
    ],
)
def test_a_function_with_a_wrong_result_is_refused_with_its_field(module_here, field, text, message):
    name = f"{module_here('ideas', text)}:make"
    with pytest.raises(ConfigError, match=rf"^{field} = 'ideas:make': .*{message}"):
        if field == "model.feedforward":
            feedforward.activation_of(name)
        elif field == "schedule.name":
            config = default().schedule
            config.update(name=name, warmup="5 steps")
            schedule.make_schedule(
                config, 1e-3, 50, lambda text: int(text.partition(" ")[0]) if "steps" in text else 10
            )
        elif field == "optimizer.name":
            config = default().optimizer
            config.name = name
            table = Parameter("lookup", {"vocab": 4}, {"embed": 4}, jax.nn.initializers.zeros)
            optimizer.make_optimizer(config, lambda peak: lambda step: peak, {"embedding": table})
        else:
            rules.chosen([name], {})
