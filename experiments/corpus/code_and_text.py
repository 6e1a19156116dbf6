"""The installed Python packages of python_environment.py and the texts of prose.py in one corpus: (d) of README.md.

python experiments/corpus/stages.py --config=experiments/corpus/code_and_text.py:DATA --output=OUT --workers=2
"""

import runpy
from pathlib import Path

CODE = Path(__file__).parents[2] / "configs/corpus/python_environment.py"
TEXT = Path(__file__).with_name("prose.py")


def get_config(arg="data/raw"):
    code, text = (runpy.run_path(str(path))["get_config"] for path in (CODE, TEXT))
    config = code()
    config.sources = (*config.sources, *text(arg).sources)
    config.tokenizer.vocab_size = 32_000
    return config
