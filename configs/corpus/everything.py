"""All sources of text in a folder.

  python -m gptjax.prepare --config=configs/corpus/everything.py:FOLDER --output=data/everything

  FOLDER/text/             .txt, .md, .jsonl, .parquet; below it wikipedia*/ with dumps or WikiExtractor's files
  FOLDER/web/              WARC, WET, HTML; below it *_docs/ with pages' text as .jsonl
  FOLDER/books/            plain text, Markdown, HTML, EPUB
  FOLDER/papers/           LaTeX, JATS, unarXive, PDF
  FOLDER/code/             git working trees
  FOLDER/tables/           Hugging Face datasets with a column "text"

Folders that do not exist are left out.
"""

import glob

from gptjax.config import ConfigError
from gptjax.corpus.config import default, source

SOURCES = (  # (kind, folder); if several sources have a document, the first source keeps it
    ("books", "books"),
    ("papers", "papers"),
    ("wikipedia", "text/wikipedia*"),
    ("code", "code"),
    ("tables", "tables"),
    ("text", "text"),
    ("text", "web/*_docs"),
    ("web", "web"),
)


def get_config(arg="data/raw"):
    config = default()
    found = []
    for kind, place in SOURCES:
        if folders := sorted(glob.glob(f"{glob.escape(arg)}/{place}/")):
            name = "web_documents" if place.endswith("_docs") else kind
            found.append(source(name=name, kind=kind, path=",".join(folders), recipe="web" if "web" in name else None))
    if not found:
        raise ConfigError(
            f"configs/corpus/everything.py:{arg}: must contain one of {', '.join(place for _, place in SOURCES)}"
        )
    config.sources = tuple(found)
    config.tokenizer.vocab_size = 32_000
    return config
