"""Does the loss stay the same with moments in bfloat16 or 8 bits, and with 8-bit matrix products? Three seeds each.

python -m gptjax.sweep experiments/low_precision/sweep.py --workdir=runs/low_precision --jobs=2
python -m gptjax.sweep experiments/low_precision/sweep.py:400 --workdir=runs/low_precision_400 --jobs=2
"""

from gptjax.sweeping import Sweep, chain, grid, named, seeds

FIRST, SECOND = "optimizer.first_moment_dtype", "optimizer.second_moment_dtype"
# the best rates of experiments/adamw_against_muon
ADAMW = {"optimizer.name": "adamw", "optimizer.learning_rate": 0.002}
MUON = {"optimizer.name": "muon", "optimizer.learning_rate": 0.016, "optimizer.muon_learning_rate": 0.02}

SETTINGS = {
    "model.num_layers": 2,
    "training.batch_size": 8,
    "evaluation.tokens": 81_920,
    "evaluation.sample_every": "",
    "checkpoint.keep_latest": 1,
    "logging.tensorboard": False,
    "logging.plots": False,
}


def get_sweep(steps: str = "150"):
    pairs = [("float32", "float32"), ("bfloat16", "float32"), ("bfloat16", "bfloat16"), ("int8", "int8")]
    moments = {f"moments {first}, {second}": {FIRST: first, SECOND: second} for first, second in pairs}
    fp8 = {"products fp8": {"model.matmul": "fp8"}}
    adamw = grid(named({"adamw": ADAMW}), named(moments))
    ends = {name: fields for name, fields in moments.items() if fields[SECOND] == fields[FIRST] != "bfloat16"}
    muon = grid(named({"muon": MUON}), named(ends | fp8))
    ends_at = dict.fromkeys(("training.duration", "evaluation.every", "checkpoint.every"), f"{int(steps)} steps")
    return Sweep("configs/stdlib_tiny.py", grid(chain(adamw, muon), seeds(3)), SETTINGS | ends_at)
