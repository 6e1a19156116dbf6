"""Text, conversations and questions from documentation that is on every machine where gptjax is installed.

  python experiments/road/documentation.py --output=data/documentation

The documentation strings of the standard library and of the packages that gptjax needs (PACKAGES) are read from their
sources, without importing them; those of a few modules that are written in C, and the language reference, come from the
running Python. OUTPUT gets:

  text/PACKAGE/docs.jsonl        documents, one per function, class or module, to train on
  chats.jsonl                    conversations about them, written by rule
  held_out/PACKAGE/docs.jsonl    every 25th of the entries: neither of the above has them, nor a summary like theirs
  questions/summaries.jsonl      about held-out entries: which of four summaries is that of a function?
  questions/lookups.jsonl        what can be read in the question: parameters and defaults of a signature
  questions/purposes.jsonl       what a function does, to be answered from its name and what was learned of others
  questions/*.toml               the cards of these three, for gptjax evaluate --tasks

Names come from the places of the files, without their private parts: numpy/_core/fromnumeric.py gives numpy.sum. The
result depends on the versions of the packages, and on nothing else.
"""

from __future__ import annotations

import ast
import hashlib
import importlib
import importlib.util
import inspect
import json
import multiprocessing
import random
import re
import sysconfig
import warnings
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from absl import app, flags

from gptjax.files import write_aside

OUTPUT = flags.DEFINE_string("output", None, "The folder to make.", required=True)
MODULES = flags.DEFINE_list("packages", [], "Only these of the packages, to try the script; stdlib is one of them.")

STDLIB, REFERENCE = "stdlib", "language"
PACKAGES = (STDLIB, "numpy", "scipy", "matplotlib", "jax", "flax", "optax", "grain", "absl", "rich")
# Modules written in C, under the names by which their functions are used.
IN_C = {"builtins": "", "math": "math", "itertools": "itertools", "time": "time", "posix": "os", "sys": "sys"}
LEFT_OUT = re.compile(
    r"tests?|.*_tests?|test_.*|conftest|_?testing|idlelib|lib2to3|turtledemo|encodings|site-packages|pydoc_data|_pyrepl|_vendor"
)
HELD_OUT = 25  # every 25th summary
SHORTEST, LONGEST = 15, 200  # characters of a summary that is asked for
QUESTIONS = 300  # of each kind, at most


@dataclass(frozen=True)
class Entry:
    """What is documented. kind: function, class, module or topic; parameters: (name, default or None) of a function."""

    package: str
    name: str
    kind: str
    parameters: tuple[tuple[str, str | None], ...]
    signature: str
    documentation: str

    @property
    def short(self) -> str:
        return self.name.rpartition(".")[2]

    @property
    def call(self) -> str:
        """The name as it is used, and its parameters."""
        return f"{self.name}({self.signature})" if self.kind == "function" else self.name

    @property
    def text(self) -> str:
        """The document that is trained on."""
        return f"{self.call}\n\n{self.documentation}"

    @property
    def summary(self) -> str:
        """The first paragraph in one line, or its first sentence if that is long; "" if it is no sentence."""
        paragraph = " ".join(re.split(r"\n\n|\n(?:Args|Arguments|Parameters|Returns):", self.documentation)[0].split())
        paragraph = re.sub(r":[a-z:]+:`~?([^`<]*)`", r"`\1`", paragraph).replace("``", "`")
        if len(paragraph) > LONGEST:
            paragraph = re.match(r".*?\.(?= |$)|", paragraph)[0]
        is_sentence = paragraph.endswith(".") and SHORTEST <= len(paragraph) <= LONGEST and paragraph[0].isalpha()
        return paragraph if is_sentence and paragraph.isascii() and "->" not in paragraph else ""


# --- Reading ---------------------------------------------------------------------------------------------------------


def public_name(package: str, parts: tuple[str, ...]) -> str:
    """The name of a module from the parts of its file's path, without private ones."""
    named = [part for part in parts if part != "__init__"]
    is_private = any(part.startswith("_") for part in named[:-1])
    public = [part for part in named if not part.startswith("_")]
    if is_private and public and not named[-1].startswith("_"):
        public.pop()  # a file of a private folder: its functions are used by the name of the folder around that
    return ".".join(public if package == STDLIB else [package, *public])


def read_file(package: str, root: Path, file: Path) -> list[Entry]:
    """The entries of a source file; none if it cannot be read as Python."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            tree = ast.parse(file.read_bytes())
    except (SyntaxError, ValueError, OSError, RecursionError):
        return []
    name = public_name(package, file.relative_to(root).with_suffix("").parts)
    is_public = not any(part.startswith("_") for part in file.relative_to(root).parts if part != "__init__.py")
    module = [entry(package, name, "module", documentation_of(tree))] if is_public else []
    return [one for one in [*module, *members(package, name, tree)] if one.documentation]


def members(package: str, name: str, node: ast.AST) -> Iterator[Entry]:
    """The public functions and classes of a module or class, and what NumPy documents by add_newdoc."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            if child.name.startswith("_"):
                continue
            whole = f"{name}.{child.name}".lstrip(".")
            if isinstance(child, ast.ClassDef):
                yield entry(package, whole, "class", documentation_of(child))
                yield from members(package, whole, child)
            else:
                yield entry(package, whole, "function", documentation_of(child), parameters_of(child.args))
        elif isinstance(child, ast.Expr) and isinstance(child.value, ast.Call):
            given = [part.value for part in child.value.args if isinstance(part, ast.Constant)]
            if getattr(child.value.func, "id", "") == "add_newdoc" and len(given) == 3:
                documentation = inspect.cleandoc(str(given[2]))
                yield entry(package, f"{package}.{given[1]}", "class", documentation)
        elif isinstance(child, ast.If | ast.Try):
            yield from members(package, name, child)


def documentation_of(node: ast.AST) -> str:
    return (ast.get_docstring(node) or "").strip()


def parameters_of(arguments: ast.arguments) -> tuple[tuple[str, str | None], ...]:
    """Names and defaults, without self and cls; those with a star have no default, and neither has a required one."""
    plain = [*arguments.posonlyargs, *arguments.args]
    defaults = [None] * (len(plain) - len(arguments.defaults)) + [ast.unparse(each) for each in arguments.defaults]
    found = [(each.arg, default) for each, default in zip(plain, defaults)]
    if arguments.vararg:
        found.append((f"*{arguments.vararg.arg}", None))
    named = zip(arguments.kwonlyargs, arguments.kw_defaults)
    found += [(each.arg, None if default is None else ast.unparse(default)) for each, default in named]
    if arguments.kwarg:
        found.append((f"**{arguments.kwarg.arg}", None))
    return tuple(found[found[:1] in ([("self", None)], [("cls", None)]) :])


def entry(
    package: str, name: str, kind: str, documentation: str, parameters: tuple[tuple[str, str | None], ...] = ()
) -> Entry:
    signature = ", ".join(each if default is None else f"{each}={default}" for each, default in parameters)
    return Entry(package, name, kind, parameters, signature, documentation)


def entries_in_c() -> Iterator[Entry]:
    for module, name in IN_C.items():
        for short, value in sorted(vars(importlib.import_module(module)).items()):
            whole = f"{name}.{short}".lstrip(".")
            if short.startswith("_") or not callable(value):
                continue
            yield of_object(whole, value)
            for method, function in sorted(vars(value).items()) if inspect.isclass(value) else ():
                if not method.startswith("_") and callable(function) and not issubclass(value, BaseException):
                    yield of_object(f"{whole}.{method}", function)


def of_object(name: str, value: object) -> Entry:
    documentation = inspect.getdoc(value) or ""
    try:
        given = [each for each in inspect.signature(value).parameters.values() if each.name not in ("self", "cls")]
    except (TypeError, ValueError):
        given = []
    stars = {inspect.Parameter.VAR_POSITIONAL: "*", inspect.Parameter.VAR_KEYWORD: "**"}
    parameters = tuple(
        (stars.get(each.kind, "") + each.name, None if each.default is each.empty else repr(each.default))
        for each in given
    )
    is_function = bool(parameters) and not inspect.isclass(value) and not re.search(r"0x[0-9a-f]{6}", str(parameters))
    return entry(STDLIB, name, "function" if is_function else "class", documentation, parameters if is_function else ())


def topics() -> Iterator[Entry]:
    """The chapters of the language reference that the help of Python shows."""
    texts = importlib.import_module("pydoc_data.topics").topics
    for name, text in sorted(texts.items()):
        head, _, rest = text.strip().partition("\n\n")
        yield entry(REFERENCE, head.partition("\n")[0].strip().strip('"') or name, "topic", rest.strip())


def all_entries(packages: Iterable[str]) -> list[Entry]:
    """Everything that is documented, each text once, in the order of names."""
    tasks = []
    for package in packages:
        if package == STDLIB:
            root = Path(sysconfig.get_path("stdlib"))
        else:
            found = importlib.util.find_spec(package)
            if not (found and found.submodule_search_locations):
                print(f"{package} is not installed: left out")
                continue
            root = Path(next(iter(found.submodule_search_locations)))
        for file in sorted(root.rglob("*.py")):
            if not any(LEFT_OUT.fullmatch(part) for part in file.relative_to(root).with_suffix("").parts):
                tasks.append((package, root, file))
    with multiprocessing.get_context("fork").Pool() as pool:
        found = [one for entries in pool.starmap(read_file, tasks, chunksize=16) for one in entries]
    if STDLIB in packages:
        found += [*entries_in_c(), *topics()]
    once: dict[str, Entry] = {}
    for one in sorted(found, key=lambda one: (one.name, one.text)):
        once.setdefault(one.documentation, one)
    return [one for one in once.values() if one.name and one.documentation]


def is_held_out(one: Entry) -> bool:
    """By the first line, so that all entries that begin alike are on one side."""
    words = re.findall(r"[a-z]+", (one.summary or one.documentation.partition("\n")[0]).lower())
    return one.kind != "topic" and number_of(" ".join(words)) % HELD_OUT == 0


def number_of(text: str) -> int:
    return int.from_bytes(hashlib.sha256(text.encode("utf-8", "replace")).digest()[:6])


# --- Questions and answers -------------------------------------------------------------------------------------------

PURPOSE = ("What does `{}` do?", "What is `{}` for?", "Explain `{}`.", "What is `{}`?")
HELLO = ("Hello", "Hi", "Hey", "Good morning", "Good evening", "Hello there", "Hi there")
WHO = ("Who are you?", "What are you?", "What can you do?", "How can you help me?", "What should I ask you?", "Help!")
ABOUT_ME = (
    "I am a small language model, trained with gptjax on the documentation of Python and of some of its packages. "
    "Ask me what a function does, or which parameters it takes. I am often wrong."
)


def purpose(one: Entry, draw: random.Random) -> tuple[str, str]:
    if one.kind == "function" and draw.random() < 0.3:
        return f"Write a one-line docstring for `def {one.short}({one.signature})`.", one.summary
    called = one.call if draw.random() < 0.5 else one.name
    return draw.choice(PURPOSE).format(called), one.summary


def lookup(one: Entry, draw: random.Random) -> tuple[str, str]:
    """A question about a signature that its text answers."""
    with_default = [each for each in one.parameters if each[1] is not None]
    call = f"{one.short}({one.signature})"
    if with_default and draw.random() < 0.6:
        name, default = draw.choice(with_default)
        return f"What is the default of `{name}` in `{call}`?", f"`{default}`"
    return f"Which parameters does `{call}` take?", listed(name for name, _ in one.parameters)


def listed(names: Iterable[str]) -> str:
    """`a`, `b` and `c`"""
    *first, last = [f"`{name}`" for name in names]
    return f"{', '.join(first)} and {last}" if first else last


def can_be_looked_up(one: Entry) -> bool:
    return one.kind == "function" and 0 < len(one.parameters) <= 8 and len(one.signature) <= 120


def conversation(one: Entry) -> list[tuple[str, str]]:
    """One or two questions about an entry with their answers; none if it has no summary."""
    draw = random.Random(number_of(one.text))
    turns = [purpose(one, draw)] if one.summary else []
    if can_be_looked_up(one) and (not turns or draw.random() < 0.7):
        turns.append(lookup(one, draw))
    draw.shuffle(turns)
    return turns


def small_talk() -> Iterator[list[tuple[str, str]]]:
    for hello in HELLO:
        for end in ("", "!", "."):
            yield [(hello + end, f"Hello! {ABOUT_ME}")]
            for who in WHO:
                yield [(f"{hello}{end or ','} {who}", ABOUT_ME)]
    for who in WHO:
        yield [(who, ABOUT_ME)]


def chat_rows(entries: Iterable[Entry]) -> Iterator[dict]:
    for turns in [*small_talk(), *map(conversation, entries)]:
        messages = [
            {"role": role, "content": text} for turn in turns for role, text in zip(("user", "assistant"), turn)
        ]
        if messages:
            yield {"messages": messages}


def question_rows(held_out: list[Entry]) -> dict[str, list[dict]]:
    """The rows of each file of questions."""
    draw = random.Random(0)
    known = [one for one in held_out if one.summary]
    draw.shuffle(known)
    summaries = []
    for one in known[:QUESTIONS]:
        others = sorted({each.summary for each in known if each.package == one.package} - {one.summary})
        if len(others) >= 3:
            choices = draw.sample(others, 3)
            choices.insert(place := draw.randrange(4), one.summary)
            summaries.append({"name": one.call, "choices": choices, "answer": place})
    lookups = [lookup(one, draw) for one in held_out if can_be_looked_up(one)]
    draw.shuffle(lookups)
    asked = {"lookups": lookups, "purposes": [purpose(one, draw) for one in known]}
    rows = {
        name: [{"question": question, "answer": answer} for question, answer in pairs[:QUESTIONS]]
        for name, pairs in asked.items()
    }
    return {"summaries": summaries, **rows}


SOURCE = "Made by python experiments/road/documentation.py from the documentation of the installed packages"
CARDS = {
    "summaries": (
        "multiple_choice",
        "Which of four summaries is that of a function that was held out?",
        'prompt = "{name}"',
        'delimiter = "\\n\\n"',
        'choices = ["{choices}"]',
        'answer = "{answer}"',
        'metrics = ["accuracy_per_byte", "accuracy", "bits_per_byte"]',
        "baseline = 0.25",
    ),
    "lookups": (
        "generation",
        "Parameters and defaults that are in the question, of functions that were held out.",
        'prompt = "{question}"',
        'references = ["{answer}"]',
        "max_new_tokens = 48",
        'metrics = ["exact_match", "squad_f1"]',
    ),
    "purposes": (
        "generation",
        "What does a function do that was held out? Words shared with its own summary.",
        'prompt = "{question}"',
        'references = ["{answer}"]',
        "max_new_tokens = 48",
        'metrics = ["squad_f1", "exact_match"]',
    ),
}


def write_rows(path: Path, rows: Iterable[dict]) -> int:
    path.parent.mkdir(parents=True, exist_ok=True)
    count = 0
    with write_aside(path) as file:
        for row in rows:
            file.write((json.dumps(row) + "\n").encode())
            count += 1
    return count


def main(argv: list[str]) -> None:
    del argv
    output = Path(OUTPUT.value)
    entries = all_entries(MODULES.value or PACKAGES)
    held_out = [one for one in entries if is_held_out(one)]
    known = [one for one in entries if not is_held_out(one)]
    for folder, side in (("text", known), ("held_out", held_out)):
        for package in dict.fromkeys(one.package for one in side):
            documents = [one.text for one in side if one.package == package]
            write_rows(output / folder / package / "docs.jsonl", ({"text": text} for text in documents))
            print(f"{folder}/{package}: {len(documents):,} documents, {sum(map(len, documents)) / 1e6:.2f} MB")
    print(f"chats.jsonl: {write_rows(output / 'chats.jsonl', chat_rows(known)):,} conversations")
    for name, rows in question_rows(held_out).items():
        print(f"questions/{name}.jsonl: {write_rows(output / 'questions' / f'{name}.jsonl', rows):,} questions")
        kind, about, *lines = CARDS[name]
        card = [f'kind = "{kind}"', f'about = "{about}"', f'source = "{SOURCE}"', f'file = "{name}.jsonl"', *lines]
        with write_aside(output / "questions" / f"{name}.toml") as file:
            file.write(("\n".join(card) + "\n").encode())


if __name__ == "__main__":
    app.run(main)
