"""The code of the packages installed in this Python environment, and of the standard library; nothing is downloaded.

  python -m gptjax.prepare --config=configs/corpus/python_environment.py --output=data/python_environment

The files are in Python, C++, Cython, Fortran and other languages, from packages under a permissive licence.
"""

import os
import sysconfig

from gptjax.corpus.config import default, source


def get_config():
    # This is one folder, except on systems that keep compiled packages in another.
    folders = dict.fromkeys(os.path.realpath(sysconfig.get_path(kind)) for kind in ("purelib", "platlib"))
    config = default()
    config.sources = (
        source(name="packages", kind="code", path=",".join(folders)),
        source(name="stdlib", kind="text", path="python-stdlib", license="PSF-2.0", language="python", recipe="code"),
    )
    config.tokenizer.vocab_size = 16_384
    return config
