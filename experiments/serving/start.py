"""How long does the engine compile? python experiments/serving/start.py --contexts=256,2048

It starts the engine of `speed_sides.py` twice in separate processes, which share a cache of compiled programs that is
empty at first, as two starts of `gptjax serve` do.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from absl import app, flags

sys.path[:0] = [str(Path(__file__).parents[1]), str(Path(__file__).parent)]

flags.DEFINE_list("contexts", ["256", "2048"], "Tokens of the context.")
flags.DEFINE_integer("num_slots", 8, "As of `gptjax serve`.")
flags.DEFINE_integer("measure", 0, "Only measures this context, and prints JSON.")
FLAGS = flags.FLAGS


def measured(context: int) -> dict[str, float]:
    import jax
    import speed_sides as sides
    from sides import processor_seconds

    from gptjax.command_line.runtime import use_compilation_cache
    from gptjax.inference.engine import Engine
    from gptjax.inference.generate import Generator

    use_compilation_cache(worth_keeping=0.0)
    sides.CONTEXT = context
    family, params = sides.random_params()
    generator = Generator(params, sides.Config(family.config), sides.Tokenizer())  # type: ignore[arg-type]
    programs: list[str] = []
    jax.monitoring.register_event_duration_secs_listener(
        lambda event, duration, **_: programs.append(event) if "backend_compile" in event else None
    )
    engine = Engine(generator, num_slots=FLAGS.num_slots)
    began, used = time.perf_counter(), processor_seconds()
    engine.start(wait_for_all=False)
    first = time.perf_counter() - began
    engine._programs.wait(for_all=True)  # type: ignore[union-attr]
    seconds, processor = time.perf_counter() - began, processor_seconds() - used
    return {"programs": len(programs), "first": first, "all": seconds, "processor": processor}


def main(argv: list[str]) -> None:
    del argv
    if FLAGS.measure:
        print(json.dumps(measured(FLAGS.measure)))
        return
    print("| context | start | programs | ready for short texts, s | all compiled, s | processor seconds |")
    print("|--:|---|--:|--:|--:|--:|")
    for context in FLAGS.contexts:
        with tempfile.TemporaryDirectory() as folder:
            for start in ("first", "second"):
                command = [sys.executable, __file__, f"--measure={context}", f"--num_slots={FLAGS.num_slots}"]
                environment = os.environ | {"JAX_COMPILATION_CACHE_DIR": folder, "OPENBLAS_NUM_THREADS": "1"}
                made = subprocess.run(command, env=environment, check=True, capture_output=True, text=True).stdout
                found = json.loads(made.splitlines()[-1])
                cells = (found["programs"], *(f"{found[name]:.1f}" for name in ("first", "all", "processor")))
                print(f"| {context} | {start} | " + " | ".join(map(str, cells)) + " |", flush=True)


if __name__ == "__main__":
    app.run(main)
