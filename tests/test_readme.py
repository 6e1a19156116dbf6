"""README and guide are correct: the snippet runs as written, links work, and the table of packages is complete."""

import re
import sys
from pathlib import Path

import pytest
from guide import snippet

from gptjax.config import validate
from gptjax.config.user_code import load_config
from gptjax.corpus import config as corpus
from gptjax.model.families import validate_model
from gptjax.sweeping.definition import load_sweep, override

ROOT = Path(__file__).parents[1]
README = ROOT / "README.md"
pytestmark = pytest.mark.skipif(not README.exists(), reason="an installed package has no README")


def packages() -> list[str]:
    """The names in the first column of the table of packages."""
    text = README.read_text(encoding="utf-8").partition("| package | what is in it |")[2].partition("\n\n")[0]
    return [name for row in text.splitlines()[2:] for name in re.findall(r"`([^`]+)`", row.split("|")[1])]


def test_the_snippet_of_the_readme_runs_as_written():
    (snippet,) = re.findall(r"^   ```python\n(.*?)^   ```", README.read_text(encoding="utf-8"), re.M | re.S)
    names: dict = {}
    exec("\n".join(line.removeprefix("   ") for line in snippet.splitlines()), names)  # trusted text
    assert names["logits"].shape == (1, 32, 256) and names["logits"].dtype == "float32"


def test_the_guides_config_corpus_and_sweep_are_valid(tmp_path, monkeypatch):
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr(sys, "path", list(sys.path))
    for name in ("my_config.py", "my_corpus.py", "my_sweep.py"):
        (tmp_path / name).write_text(snippet(f"# {name}"))
    config = load_config(f"{tmp_path}/my_config.py:large")
    validate(config)
    validate_model(config)
    assert (config.model.num_layers, load_config(f"{tmp_path}/my_config.py").model.num_layers) == (8, 4)
    corpus.validate(load_config(f"{tmp_path}/my_corpus.py", corpus.default))
    sweep = load_sweep(f"{tmp_path}/my_sweep.py")
    assert len(sweep.points) == 16
    override(load_config(sweep.config), {**sweep.settings, **sweep.points[-1].settings})


def test_the_table_of_packages_is_complete_and_every_entry_exists():
    named = packages()
    assert not [name for name in named if not list((ROOT / "gptjax").glob(name))]
    folders = {f"{path.name}/" for path in (ROOT / "gptjax").iterdir() if (path / "__init__.py").exists()}
    assert folders <= set(named)


@pytest.mark.parametrize("page, least", [("README.md", 30), ("GUIDE.md", 10)])
def test_links_have_targets(page, least):
    text = (ROOT / page).read_text(encoding="utf-8")
    links = re.findall(r"\]\(([^)#]+)\)", text)
    assert len(links) > least and not [link for link in links if "://" not in link and not (ROOT / link).exists()]


def test_the_list_at_the_top_of_the_guide_names_its_sections():
    text = (ROOT / "GUIDE.md").read_text(encoding="utf-8")
    listed = re.findall(r"^- \[([^\]]+)\]\(#([a-z-]+)\)$", text, re.M)
    assert [title for title, _ in listed] == re.findall(r"^## (.+)$", text, re.M)
    assert all(anchor == title.lower().replace(" ", "-") for title, anchor in listed)
