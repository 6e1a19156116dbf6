"""Time and memory of a step with adapters beside full fine-tuning, here and with PEFT under PyTorch, in one run.

  python experiments/lora/speed.py --torch_python=.venv-parity/bin/python

Every side is a process of its own, and they take turns. The model is like Llama; both packages have adapters of rank 16
on all linear layers of the blocks and AdamW. PyTorch runs eagerly unless --torch_compile is given. Without
--torch_python only gptjax is measured. Memory is the largest size of the process, compilation included, above its size
after the imports.
"""

from __future__ import annotations

import argparse
import itertools
import resource
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))
from sides import Side, take_turns

LAYERS, HEADS, WIDTH, FEEDFORWARD, VOCABULARY, LENGTH, ROWS = 4, 4, 256, 704, 2048, 128, 8
RANK, ALPHA, RATE = 16, 16.0, 1e-3
LORA = {"model.lora_rank": RANK, "model.lora_alpha": ALPHA}
OURS = {
    "all parameters": {},
    "adapters": LORA,
    "adapters, DoRA": LORA | {"model.lora_dora": True},
    "adapters, int8 base": LORA | {"model.lora_base": "int8"},
}
THEIRS = ("all parameters", "adapters", "adapters, DoRA")
PAUSE = 0.3  # seconds between turns, for the threads of the side before to fall asleep


def batches() -> Iterator[np.ndarray]:
    """int32 [B, T + 1], without end; the same for every side."""
    draw = np.random.default_rng(0)
    return itertools.cycle(list(draw.integers(0, VOCABULARY, (8, ROWS, LENGTH + 1), np.int32)))


def peak_mib() -> float:
    """The largest size of this process so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def gptjax_steps(variant: str) -> tuple[Callable[[int], float], dict]:
    import jax

    from gptjax.command_line.kept_memory import keep_freed_memory
    from gptjax.config import default
    from gptjax.data.facts import DataFacts
    from gptjax.parallel.distributed import local_rows, put_batch
    from gptjax.planning import plan
    from gptjax.settings import freeze

    keep_freed_memory()
    facts: dict = {"version": f"jax {jax.__version__}"}
    imported = peak_mib()
    config = default()
    config.model.update(num_layers=LAYERS, num_heads=HEADS, width=WIDTH, feedforward_width=FEEDFORWARD, dtype="float32")
    config.data.sequence_length = LENGTH
    config.training.update(batch_size=ROWS, duration="1000000 steps")
    config.optimizer.update(learning_rate=RATE, weight_decay=0.0)
    config.schedule.update(name="constant", warmup="0 steps")
    config.update_from_flattened_dict(OURS[variant])
    made = plan(freeze(config), DataFacts(VOCABULARY), jax.devices())
    jax.set_mesh(made.mesh)
    train_step, state = made.trainer.compile_train_step(made.abstract_batch), made.trainer.init()
    rows, source = local_rows(made.mesh, ROWS, 1), batches()
    weights = np.ones((ROWS, LENGTH), np.float32)

    def steps(count: int) -> float:
        nonlocal state
        for _ in range(count):
            window = next(source)
            batch = {"tokens": window[:, :-1], "targets": window[:, 1:], "weights": weights}
            state, metrics = train_step(state, put_batch(made.mesh, batch, rows, ROWS, 1))
        facts["mib"] = peak_mib() - imported
        return float(jax.device_get(metrics)["train/loss"])

    facts["trained"] = sum(parameter.size for parameter in jax.tree.leaves(made.trainer.declared) if parameter.trained)
    return steps, facts


def torch_steps(variant: str, compiles: bool) -> tuple[Callable[[int], float], dict]:
    import peft
    import torch
    import transformers

    versions = f"torch {torch.__version__}, transformers {transformers.__version__}, peft {peft.__version__}"
    facts: dict = {"version": versions}
    imported = peak_mib()
    model = transformers.LlamaForCausalLM(
        transformers.LlamaConfig(
            vocab_size=VOCABULARY, hidden_size=WIDTH, intermediate_size=FEEDFORWARD, num_hidden_layers=LAYERS,
            num_attention_heads=HEADS, max_position_embeddings=LENGTH, tie_word_embeddings=True, use_cache=False,
            bos_token_id=None, eos_token_id=None, attn_implementation="sdpa",
        )
    )  # fmt: skip
    if variant != "all parameters":
        settings = peft.LoraConfig(r=RANK, lora_alpha=ALPHA, target_modules="all-linear", use_dora="DoRA" in variant)
        model = peft.get_peft_model(model, settings)
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=RATE, weight_decay=0.0, fused=True)
    source, applied = batches(), torch.compile(model.train()) if compiles else model.train()

    def steps(count: int) -> float:
        for _ in range(count):
            window = torch.from_numpy(next(source)).long()
            tokens, targets = window[:, :-1].contiguous(), window[:, 1:].contiguous()
            loss = applied(input_ids=tokens, labels=targets, shift_labels=targets).loss
            loss.backward()
            torch.nn.utils.clip_grad_norm_(trained, 1.0)
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        facts["mib"] = peak_mib() - imported
        return loss.item()

    facts["trained"] = sum(parameter.numel() for parameter in trained)
    return steps, facts


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--torch_python", default="", help="an interpreter with PyTorch, transformers and peft")
    parser.add_argument("--turns", type=int, default=7)
    parser.add_argument("--steps", type=int, default=5, help="in a turn")
    parser.add_argument("--torch_compile", action="store_true", help="measure PyTorch with torch.compile")
    parser.add_argument("--side", nargs=2, metavar=("PACKAGE", "VARIANT"), help="used by the script itself")
    options = parser.parse_args()
    if options.side:
        package, variant = options.side
        take_turns(*(gptjax_steps(variant) if package == "gptjax" else torch_steps(variant, options.torch_compile)))
        return
    pythons = {("gptjax", variant): sys.executable for variant in OURS}
    pythons |= {("torch", variant): options.torch_python for variant in THEIRS if options.torch_python}
    also = ["--torch_compile"] if options.torch_compile else []
    sides = {each: Side([python, __file__, "--side", *each, *also]) for each, python in pythons.items()}
    facts = {each: side.read() for each, side in sides.items()}
    seconds: dict[tuple[str, str], list[float]] = {each: [] for each in sides}
    for _ in range(options.turns):
        for each, side in sides.items():
            time.sleep(PAUSE)
            seconds[each].append(side.ask(options.steps)["processor_seconds"] / options.steps)
    for side in sides.values():
        side.close()
    print("| | trained | processor ms per step: median (least to most) | beside all parameters | memory, MiB |")
    print("|---|---|---|---|---|")
    for each, found in seconds.items():
        whole = statistics.median(seconds[each[0], "all parameters"])
        low, high, median = (1e3 * value for value in (min(found), max(found), statistics.median(found)))
        times, ratio = f"{median:.0f} ({low:.0f} to {high:.0f})", statistics.median(found) / whole
        print(
            f"| {each[0]}, {each[1]} | {facts[each]['trained']:,} | {times} | {ratio:.2f} | {facts[each]['mib']:.0f} |"
        )
    print(*sorted({fact["version"] for fact in facts.values()}), sep=", ")


if __name__ == "__main__":
    main()
