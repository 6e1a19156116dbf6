"""configs/corpus/everything.py with a search for evaluation sets, which are in FOLDER/eval/.

python -m gptjax.prepare --config=experiments/corpus/everything.py:FOLDER --output=OUT
"""

import runpy
from pathlib import Path

from gptjax.corpus.config import evaluation

RECIPE = Path(__file__).parents[2] / "configs/corpus/everything.py"


def get_config(arg="data/raw"):
    config = runpy.run_path(str(RECIPE))["get_config"](arg)
    config.tokenizer.vocab_size = 8192
    config.contamination.sets = (
        evaluation(name="xquad", kind="squad", path=f"{arg}/eval/xquad/xquad.en.json"),
        evaluation(name="squadshifts", kind="squad", path=f"{arg}/eval/squadshifts/datasets/new_wiki_v1.0.json"),
        evaluation(
            name="boolq",
            kind="jsonl",
            path=f"{arg}/eval/gauntlet/reading_comprehension/boolq.jsonl",
            fields=("query",),
        ),
    )
    config.contamination.action = "report"
    return config
