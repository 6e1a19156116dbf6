"""Books and source code from two folders.

  python -m gptjax.prepare --config=configs/corpus/books_and_code.py:BOOKS,CODE --output=data/books_and_code

BOOKS holds plain text, Markdown, HTML or EPUB, such as a mirror of Project Gutenberg; CODE holds git working trees or
folders of source code. Only code under a permissive licence is used. The default folders are data/books and data/code.
"""

from gptjax.config import ConfigError
from gptjax.corpus.config import default, source


def get_config(arg="data/books,data/code"):
    paths = arg.split(",")
    if len(paths) != 2 or not all(paths):
        raise ConfigError(f"configs/corpus/books_and_code.py:{arg}: expected two folders, BOOKS,CODE")
    config = default()
    config.sources = (
        source(name="books", kind="books", path=paths[0], language="en", unwrap=True),
        source(name="code", kind="code", path=paths[1]),
    )
    config.tokenizer.vocab_size = 32_000
    return config
