"""Published speeds beside those that gptjax plan predicts for the same shapes: python experiments/plan/backtest.py

Predicted by formula, which needs no compiler. Nothing is trained.
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from gptjax.data.facts import DataFacts
from gptjax.forecast.devices import described_place
from gptjax.forecast.formula import formula_needs
from gptjax.forecast.run import forecast_run
from gptjax.planning import plan
from gptjax.user_code import load_config

CONFIGS = Path(__file__).parents[2] / "configs"
ONE_PASS = {"training.gradient_accumulation_steps": 1, "mesh.data": 1}


class Published(NamedTuple):
    """A run that was published. reported: tokens per second and GPU. fields: what differs from the config."""

    name: str
    config: str
    fields: dict[str, object]
    hardware: str
    count: int
    reported: float


RUNS = (
    Published(
        "GPT-2 124M, llm.c, AdamW",
        "gpt2.py:124m",
        {"training.gradient_accumulation_steps": 1, "training.loss_chunk": 0},
        *("H100", 8, 475e3),
    ),
    Published(
        "1.3B, llm-foundry, T = 2,048",
        "llama.py:1b",
        ONE_PASS
        | {"mesh.fsdp": 8, "model.feedforward": "gelu", "model.num_layers": 24, "model.num_heads": 16}
        | {"model.num_kv_heads": 16, "model.head_width": 128, "model.vocab_size": 50368, "model.remat": "none"}
        | {"training.batch_size": 128, "model.layers": "unroll"},
        *("H100", 8, 45.5e3),
    ),
    Published(
        "Llama 2 7B, MaxText, T = 4,096",
        "llama.py:8b",
        ONE_PASS
        | {"mesh.fsdp": 8, "model.feedforward_width": 11008, "model.num_kv_heads": 32, "model.vocab_size": 32000}
        | {"data.sequence_length": 4096, "training.batch_size": 16},
        *("H100", 8, 11.36e3),
    ),
    Published(
        "Llama 3 8B, torchtitan, T = 8,192",
        "llama.py:8b",
        ONE_PASS | {"mesh.fsdp": 8, "data.sequence_length": 8192, "training.batch_size": 8},
        *("H100", 8, 6.67e3),
    ),
    Published(
        "Llama 3 8B, torchtitan, T = 8,192, float8",
        "llama.py:8b",
        ONE_PASS | {"mesh.fsdp": 8, "data.sequence_length": 8192, "training.batch_size": 8, "model.matmul": "fp8"},
        *("H100", 8, 8.53e3),
    ),
    Published(
        "Llama 3.1 70B, MaxText, T = 8,192",
        "llama.py:70b",
        ONE_PASS | {"mesh.fsdp": 256, "data.sequence_length": 8192, "training.batch_size": 512, "model.remat": "full"},
        *("H200", 256, 1056.0),
    ),
)


def main() -> None:
    print("| run | GPUs | reported | predicted (slow to fast) | predicted / reported | MFU, full |")
    print("|---" * 6 + "|")
    for run in RUNS:
        config = load_config(str(CONFIGS / run.config))
        config.update_from_flattened_dict(run.fields)
        place = described_place(run.hardware, run.count)
        made = plan(config, DataFacts(config.model.vocab_size), place.devices)
        speed = forecast_run(made, place, formula_needs(made), None).speed
        assert speed is not None
        slow, likely, fast = (rate / run.count for rate in speed.tokens_per_second)
        print(
            f"| {run.name} | {run.count} × {run.hardware} | {run.reported:,.0f} | {likely:,.0f} ({slow:,.0f} to "
            f"{fast:,.0f}) | {likely / run.reported:.2f} | {speed.mfu['full'].likely:.0%} |"
        )


if __name__ == "__main__":
    main()
