"""Books, Wikipedia and small text sets: the corpus (c) of README.md.

python experiments/corpus/stages.py --config=experiments/corpus/prose.py:DATA --output=OUT --workers=2
"""

from gptjax.corpus.config import default, source


def get_config(arg="data/raw"):
    config = default()
    config.sources = (
        source(name="books", kind="books", path=f"{arg}/books/classic_books"),
        source(name="wikipedia", kind="wikipedia", path=f"{arg}/text/wikipedia_2014"),
        source(name="text", kind="text", path=f"{arg}/text/tinystories,{arg}/text/wikitext2"),
    )
    config.tokenizer.vocab_size = 32_000
    return config
