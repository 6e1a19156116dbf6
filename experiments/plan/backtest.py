"""Published speeds beside those that gptjax plan predicts for the same shapes: python experiments/plan/backtest.py

Predicted by formula, which needs no compiler. Nothing is trained.
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from gptjax.config.user_code import load_config
from gptjax.data.facts import DataFacts
from gptjax.forecast.devices import described_place
from gptjax.forecast.formula import formula_needs
from gptjax.forecast.run import forecast_run
from gptjax.planning import plan

CONFIGS = Path(__file__).parents[2] / "configs"
NANOCHAT = {"mesh.data": 8, "mesh.zero1": True, "model.num_heads": 12, "model.vocab_size": 32_768}
NANOCHAT |= {"data.sequence_length": 2048, "model.window": 1024, "model.window_pattern": "SSSL"}
NANOCHAT |= {"training.loss_chunk": 0, "model.layers": "unroll"}
# 671 B parameters, of which a token uses 37 B. Attention has no latent vectors here: 96 heads with 6 of keys and values
# have as many parameters as theirs. The layer that predicts a second token is left out, and experts multiply in
# bfloat16, where they used 8 bits. A capacity of 1 stands for sending each token to the devices of its experts.
DEEPSEEK = {"model.vocab_size": 129_280, "model.num_layers": 61, "model.width": 7168, "model.num_heads": 96}
DEEPSEEK |= {"model.num_kv_heads": 6, "model.feedforward_width": 2048, "model.num_experts": 256}
DEEPSEEK |= {"model.first_dense_layers": 3, "model.first_dense_width": 18_432, "model.bias": "none"}
DEEPSEEK |= {"model.remat": "full", "model.expert_capacity": 1.0, "training.batch_size": 16_384}
# FLOPs per token as that benchmark counts them: 6 for each of 1,557.7 M parameters, and attention with all keys.
TRANSFORMER_ENGINE = 6 * 1_557_686_400 + 12 * 48 * 1600 * 1024
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
        "SmolLM3's ablation model, 1.2B, nanotron, T = 4,096",
        "llama.py:1b",
        ONE_PASS
        | {"mesh.data": 8, "model.vocab_size": 128_256, "data.sequence_length": 4096, "model.layers": "unroll"}
        | {"training.batch_size": 384, "training.gradient_accumulation_steps": 16, "model.remat": "none"},
        *("H100", 8, 42e3),
    ),
    Published(
        "GPT-2 1.5B, nanoGPT, T = 1,024",
        "gpt2.py:1558m",
        ONE_PASS
        | {"training.batch_size": 1024, "training.gradient_accumulation_steps": 64, "training.loss_chunk": 0}
        | {"model.vocab_size": 50_304, "model.remat": "none", "model.layers": "unroll"},
        *("H200", 1, 49.9e3),
    ),
    *(
        Published(
            f"GPT-2 1.5B, Transformer Engine, {rows} rows, float8",
            "gpt2.py:1558m",
            ONE_PASS
            | {"training.batch_size": 8 * rows, "training.gradient_accumulation_steps": 8, "training.loss_chunk": 0}
            | {"model.vocab_size": 50_304, "model.remat": "none", "model.layers": "unroll", "model.matmul": "fp8"},
            *("H200", 1, flops_per_second / TRANSFORMER_ENGINE),
        )
        for rows, flops_per_second in ((14, 532.68e12), (38, 638.4e12))
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
    Published(
        "nanochat d24, bfloat16, T = 2,048",
        "depth.py:24",
        NANOCHAT | {"training.batch_size": 256, "training.gradient_accumulation_steps": 2},
        *("H100", 8, 16_704 * 2**19 / 10_949.47 / 8),
    ),
    Published(
        "nanochat d24, float8, T = 2,048",
        "depth.py:24",
        NANOCHAT | {"training.batch_size": 512, "training.gradient_accumulation_steps": 4, "model.matmul": "fp8"},
        *("H100", 8, 9.5 * 729.8e6 / (2.02 * 3600) / 8),
    ),
    Published(
        "OLMo 1B, OLMo-core, T = 4,096",
        "llama.py:1b",
        {"mesh.data": 1, "mesh.fsdp": 64, "model.num_heads": 16, "model.num_kv_heads": 16, "model.head_width": 128}
        | {"model.vocab_size": 50304, "model.tied_embeddings": False, "data.sequence_length": 4096}
        | {"training.batch_size": 1024, "training.gradient_accumulation_steps": 4, "model.remat": "none"}
        | {"model.layers": "unroll"},
        *("H100", 64, 46e3),
    ),
    Published(
        "OLMoE 1B-7B, T = 4,096",
        "moe.py:olmoe",
        {"mesh.data": 1, "mesh.fsdp": 256, "training.batch_size": 1024, "training.gradient_accumulation_steps": 1},
        *("H100", 256, 5.133e12 / (256 * 10 * 86_400)),
    ),
    Published(
        "DeepSeek-V3's size, T = 4,096",
        "moe.py:glm4.5",
        DEEPSEEK | {"mesh.data": 1, "mesh.fsdp": 32, "mesh.expert": 64, "training.gradient_accumulation_steps": 8},
        *("H100", 2048, 14.8e12 / (2.664e6 * 3600)),
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
