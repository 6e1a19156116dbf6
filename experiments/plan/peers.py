"""What other estimators say about parameters, FLOPs and memory, divided by what was measured or compiled.

  python experiments/plan/peers.py

Needs gptjax, PyTorch, transformers, and those of accelerate, deepspeed, llm-analysis, torchinfo, calflops and fvcore
that shall be compared, in an environment of their own. No weights are allocated. The memory of processors is that of
measured.jsonl, and the memory of GPUs is what XLA's compiler reserves (experiments/memory/savings.csv).
"""

from __future__ import annotations

import csv
import importlib.metadata
import json
import sys
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import memory
import torch
import transformers

HERE = Path(__file__).parent
GIB = 2**30


class Case(NamedTuple):
    """A model and a step, and the bytes per device that the step takes.

    width: bytes of an activation. gated: whether feed-forward layers have a gate.
    """

    name: str
    config: Any
    rows: int
    length: int
    devices: int
    width: int
    bytes: float
    ours: float
    flops: float | None = None
    parameters: int | None = None

    @property
    def gated(self) -> bool:
        return isinstance(self.config, transformers.LlamaConfig)


def llama(vocabulary: int, layers: int, width: int, heads: int, keys: int, inner: int, tied: bool, length: int) -> Any:
    return transformers.LlamaConfig(
        vocab_size=vocabulary,
        num_hidden_layers=layers,
        hidden_size=width,
        num_attention_heads=heads,
        num_key_value_heads=keys,
        intermediate_size=inner,
        tie_word_embeddings=tied,
        max_position_embeddings=length,
    )


def gpt2(vocabulary: int, layers: int, width: int, heads: int, length: int) -> Any:
    return transformers.GPT2Config(
        vocab_size=vocabulary, n_layer=layers, n_embd=width, n_head=heads, n_positions=length
    )


def cases() -> Iterator[Case]:
    measured = {row["config"]: row for row in map(json.loads, (HERE / "measured.jsonl").read_text().splitlines())}
    for name, short, config, rows, length in (
        ("the same, as GPT-2", "14M", gpt2(8192, 6, 384, 6, 256), 8, 256),
        ("Llama 135M's shape, 8 layers, grouped queries", "33M", llama(8192, 8, 576, 9, 3, 1536, True, 512), 4, 512),
        ("GPT-2 124M, 1 row of 1,024", "124M", gpt2(50304, 12, 768, 12, 1024), 1, 1024),
    ):
        row = measured[name]
        ours = sum(row["needs"]["memory"][part] for part in row["needs"]["memory"] if part != "host")
        yield Case(
            f"{short}, CPU", config, rows, length, 1, 4, row["bytes"], ours, row["plain_flops"], row["parameters"]
        )
    with (HERE.parent / "memory" / "savings.csv").open(newline="") as file:
        compiled = {(row["model"], row["saving"]): row for row in csv.DictReader(file)}
    for name, config, rows, length, devices in (
        ("124M, 1 GPU", gpt2(50304, 12, 768, 12, 1024), 64, 1024, 1),
        ("1B, 8 GPUs", llama(128256, 16, 2048, 32, 8, 8192, True, 4096), 64, 4096, 8),
        ("8B, 8 GPUs", llama(128256, 32, 4096, 32, 8, 14336, False, 4096), 16, 4096, 8),
    ):
        row = compiled[name, "nothing"]
        compiled_bytes = GIB * (float(row["state"]) + float(row["work"]))
        ours = GIB * memory.estimate(name, "nothing")
        yield Case(name, config, rows, length, devices, 2, compiled_bytes, ours)


def model_of(case: Case) -> torch.nn.Module:
    """The model without weights."""
    with torch.device("meta"):
        return transformers.AutoModelForCausalLM.from_config(case.config, attn_implementation="eager")


def tokens_of(case: Case, rows: int) -> torch.Tensor:
    return torch.zeros((rows, case.length), dtype=torch.long, device="meta")


# --- memory: bytes per device ----------------------------------------------------------------------------------------


def accelerate_memory(case: Case) -> float:
    from accelerate.commands.estimate import estimate_training_usage
    from accelerate.utils import calculate_maximum_sizes

    size, _ = calculate_maximum_sizes(model_of(case))
    found = estimate_training_usage(size, "float32" if case.width == 4 else "bfloat16")
    return max(found.values()) / case.devices


def deepspeed_memory(case: Case) -> float:
    from deepspeed.runtime.zero.stage3 import estimate_zero3_model_states_mem_needs

    model = model_of(case)
    layers = (sum(each.numel() for each in module.parameters(recurse=False)) for module in model.modules())
    _, bytes_of_gpu, _ = estimate_zero3_model_states_mem_needs(
        model.num_parameters(),
        max(layers),
        num_gpus_per_node=case.devices,
        num_nodes=1,
        cpu_offload=False,
        cpu_offload_params=False,
    )
    return bytes_of_gpu


def llm_analysis_memory(case: Case) -> float:
    if case.width > 2:
        raise ValueError("its numbers have at most 16 bits")
    return _analysed(case)["memory"]


def _analysed(case: Case) -> dict[str, float]:
    from llm_analysis import analysis
    from llm_analysis.config import DtypeConfig, GPUConfig, ModelConfig, ParallelismConfig

    config, bits = case.config, 16
    heads = config.num_attention_heads
    inner = getattr(config, "intermediate_size", None) or 4 * config.hidden_size
    model = ModelConfig(
        "model",
        config.num_hidden_layers,
        heads,
        config.hidden_size,
        config.vocab_size,
        case.length,
        num_key_value_heads=getattr(config, "num_key_value_heads", heads),
        ffn_embed_dim=inner,
        expansion_ratio=inner / config.hidden_size,
    )
    gpu = GPUConfig("large", 1e6, 3352, 450, 8e-6, 989)
    found = analysis.LLMAnalysis(
        model, gpu, DtypeConfig("own", bits, bits, bits), ParallelismConfig(dp_size=case.devices), flops_efficiency=0.5
    ).training(
        batch_size_per_gpu=case.rows // case.devices,
        gradient_accumulation_steps=1,
        seq_len=case.length,
        total_num_tokens=1,
        ds_zero=analysis.DSZeRO(3 if case.devices > 1 else 0),
        flash_attn=case.width == 2,
        mlp_gated_linear_units=case.gated,
    )
    held = found["(weight+op_state+grad)_memory_per_gpu"] + found["activation_memory_per_gpu"]
    return {**found, "memory": held}


def torchinfo_memory(case: Case) -> float:
    """Of a forward and a backward pass with float32 numbers; there is no optimizer in it."""
    found = _torchinfo(case)
    return found.total_input + found.total_output_bytes + found.total_param_bytes


def _torchinfo(case: Case) -> Any:
    import torchinfo

    rows = case.rows // case.devices
    return torchinfo.summary(model_of(case), input_data=tokens_of(case, rows), device="meta", verbose=0)


# --- parameters and FLOPs of a step ----------------------------------------------------------------------------------


def transformers_counts(case: Case) -> tuple[float, float]:
    """num_parameters, and the 6 N D that floating_point_ops was until version 5 removed it, without embeddings."""
    model = model_of(case)
    return model.num_parameters(), 6 * model.num_parameters(exclude_embeddings=True) * case.rows * case.length


def pytorch_counts(case: Case) -> tuple[float, float]:
    """PyTorch's own counter, which counts what runs, forward and backward."""
    from torch.utils.flop_counter import FlopCounterMode

    model = model_of(case)
    with FlopCounterMode(display=False) as counter:
        tokens = tokens_of(case, case.rows)
        model(input_ids=tokens, labels=tokens).loss.backward()
    return sum(each.numel() for each in model.parameters()), counter.get_total_flops()


def torchinfo_counts(case: Case) -> tuple[float, float]:
    """Twice its multiplications and additions, and three times for the backward pass."""
    found = _torchinfo(case)
    return found.total_params, 3 * 2 * found.total_mult_adds


def calflops_counts(case: Case) -> tuple[float, float]:
    import calflops

    flops, _, parameters = calflops.calculate_flops(
        model_of(case),
        kwargs={"input_ids": tokens_of(case, case.rows)},
        include_backPropagation=True,
        print_results=False,
        print_detailed=False,
        output_as_string=False,
    )
    return parameters, flops


def fvcore_counts(case: Case) -> tuple[float, float]:
    """It counts a multiplication and an addition as one, and forward alone: 3 times 2."""
    from fvcore.nn import FlopCountAnalysis, parameter_count

    class Logits(torch.nn.Module):
        """The model with an array as its result."""

        def __init__(self) -> None:
            super().__init__()
            self.model = model_of(case)

        def forward(self, tokens: torch.Tensor) -> torch.Tensor:
            return self.model(input_ids=tokens, use_cache=False).logits

    model = Logits()
    analysis = FlopCountAnalysis(model, tokens_of(case, case.rows)).unsupported_ops_warnings(False)
    return parameter_count(model)[""], 3 * 2 * analysis.uncalled_modules_warnings(False).total()


def llm_analysis_counts(case: Case) -> tuple[float, float]:
    found = _analysed(case)
    return found["num_params_total"], found["num_flops_total_per_micro_batch"]


MEMORY: dict[str, Callable[[Case], float]] = {
    "accelerate": accelerate_memory,
    "deepspeed": deepspeed_memory,
    "llm-analysis": llm_analysis_memory,
    "torchinfo": torchinfo_memory,
}
COUNTS: dict[str, Callable[[Case], tuple[float, float]]] = {
    "transformers": transformers_counts,
    "torch": pytorch_counts,
    "torchinfo": torchinfo_counts,
    "calflops": calflops_counts,
    "fvcore": fvcore_counts,
    "llm-analysis": llm_analysis_counts,
}


def tried(function: Callable[[Case], Any], case: Case) -> Any:
    """The result, or an error's kind and message for the reader of stderr, and '–'."""
    try:
        return function(case)
    except Exception as error:
        print(f"{function.__name__}, {case.name}: {type(error).__name__}: {str(error)[:200]}", file=sys.stderr)
        return "–"


def named(package: str) -> str:
    try:
        return f"{package} {importlib.metadata.version(package)}"
    except importlib.metadata.PackageNotFoundError:
        return f"{package}, not installed"


def main() -> None:
    warnings.simplefilter("ignore")
    transformers.logging.set_verbosity_error()
    every = list(cases())
    print(f"| memory | {' | '.join(case.name for case in every)} |\n|{'---|' * (len(every) + 1)}")
    ours = [f"{case.ours / case.bytes:.2f}" for case in every]
    print(f"| gptjax: compiled on processors, formula for GPUs | {' | '.join(ours)} |")
    for package, function in MEMORY.items():
        found = [tried(function, case) for case in every]
        cells = (each if isinstance(each, str) else f"{each / case.bytes:.2f}" for case, each in zip(every, found))
        print(f"| {named(package)} | {' | '.join(cells)} |", flush=True)
    counted = [case for case in every if case.flops]
    print(f"\n| parameters, FLOPs | {' | '.join(case.name for case in counted)} |\n|{'---|' * (len(counted) + 1)}")
    for package, counts in COUNTS.items():
        cells = []
        for case in counted:
            found = tried(counts, case)
            assert case.parameters and case.flops
            cells.append(
                found if isinstance(found, str) else f"{found[0] / case.parameters:.3f}, {found[1] / case.flops:.3f}"
            )
        print(f"| {named(package)} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
