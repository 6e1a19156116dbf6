"""Memory by formula beside the memory of the compiled steps of experiments/memory, as a table.

python experiments/plan/memory.py
"""

from __future__ import annotations

import csv
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "memory"))  # before this folder, which has a measure.py, too
import measure

from gptjax.config.user_code import load_config
from gptjax.data.facts import DataFacts
from gptjax.forecast.formula import formula_needs
from gptjax.parallel.mesh import AbstractDevices
from gptjax.planning import plan

CONFIGS = Path(__file__).parents[2] / "configs"


def estimate(model: str, saving: str) -> float:
    """GiB per GPU of a row of savings.csv, by formula."""
    name, num_gpus, rows, shape = measure.MODELS[model]
    file, _, setting = name.partition(":")
    config = load_config(f"{CONFIGS / file}.py:{setting}")
    step = {"training.batch_size": rows, "training.gradient_accumulation_steps": 1}
    config.update_from_flattened_dict(measure.ALL | step | shape | measure.SAVINGS[saving])
    made = plan(config, DataFacts(config.model.vocab_size), AbstractDevices("gpu", num_gpus, "NVIDIA H200"))
    return formula_needs(made).memory.total / 2**30


def main() -> None:
    with measure.TABLE.open(newline="") as file:
        rows = list(csv.DictReader(file))
    ratios: dict[str, dict[str, float]] = {}
    for row in rows:
        compiled = float(row["state"]) + float(row["work"])
        ratios.setdefault(row["saving"], {})[row["model"]] = estimate(row["model"], row["saving"]) / compiled
    print(f"| | {' | '.join(measure.MODELS)} |\n|---|{'---|' * len(measure.MODELS)}")
    for saving, found in ratios.items():
        cells = (f"{found[model]:.2f}" if model in found else "" for model in measure.MODELS)
        print(f"| {saving} | {' | '.join(cells)} |")
    every = [ratio for found in ratios.values() for ratio in found.values()]
    print(f"\n{sum(abs(ratio - 1) <= 0.05 for ratio in every)} of {len(every)} within 5 %")


if __name__ == "__main__":
    main()
