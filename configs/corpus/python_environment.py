"""Code at hand: what the Python environment that runs this has installed, and Python's own library; nothing downloaded.

  python -m gptjax.prepare --config=configs/corpus/python_environment.py --output=data/python_environment

Files in Python, C++, Cython, Fortran and other languages, of packages under a permissive licence.
"""

import os
import sysconfig

from gptjax.corpus.config import default, source


def get_config():
    # One folder, but on systems that keep compiled packages apart.
    folders = dict.fromkeys(os.path.realpath(sysconfig.get_path(kind)) for kind in ("purelib", "platlib"))
    config = default()
    config.sources = (
        source(name="packages", kind="code", path=",".join(folders)),
        source(name="stdlib", kind="text", path="python-stdlib", license="PSF-2.0", language="python", recipe="code"),
    )
    config.tokenizer.vocab_size = 16_384
    return config
