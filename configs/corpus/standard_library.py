"""The standard library of the Python that runs this: the smallest corpus of code; nothing is downloaded."""

from gptjax.corpus.config import default, source


def get_config():
    config = default()
    config.sources = (source(name="stdlib", kind="text", path="python-stdlib", license="PSF-2.0", language="python"),)
    config.tokenizer.vocab_size = 4096
    return config
