"""Kills training runs at random times and checks that their results are unchanged: python tests/soak.py --kills=200

Every round is one run, killed at random moments until it finishes; its figures must then equal those of an
uninterrupted run bit for bit. Moments are drawn from start-up, training, saving and deleting.
"""

import argparse
import collections
import random
import shutil
import sys
import tempfile
import time
from pathlib import Path

from killed_runs import MOMENTS, Runs, losses, remains

from gptjax.training.checkpoints.format import TEMPORARY


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--steps", type=int, default=120, help="length of a run")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()

    folder = Path(tempfile.mkdtemp(prefix="gptjax-soak-"))
    runs, generator = Runs(folder, arguments.steps), random.Random(arguments.seed)
    runs.finish(folder / "unbroken")
    expected = losses(folder / "unbroken")
    counts: collections.Counter[str] = collections.Counter()
    started = time.monotonic()
    while counts["kills"] < arguments.kills:
        workdir = folder / f"round-{counts['rounds']}"
        ended = False
        while not ended and counts["kills"] < arguments.kills:
            moment = generator.choice(list(MOMENTS))
            ended = not runs.kill(workdir, moment, generator)
            if not ended:
                left = remains(workdir)
                counts.update(["kills", f"while {moment}"])
                counts["leaving an unfinished save"] += any(TEMPORARY in name for name in left)
                counts["leaving an unfinished deletion"] += any(TEMPORARY not in name for name in left)
            print(f"\r{time.monotonic() - started:6.0f} s  {summary(counts)}", end="", flush=True)
        if not ended:
            runs.finish(workdir)
        if losses(workdir) != expected:
            print(
                f"\nround {counts['rounds']} DIFFERS from the uninterrupted run: compare the metrics.jsonl in {folder}"
            )
            return 1
        counts["rounds"] += 1
        shutil.rmtree(workdir)
    print(f"\n{summary(counts)}: all bit-equal to the uninterrupted run")
    shutil.rmtree(folder)
    return 0


def summary(counts: collections.Counter) -> str:
    return ", ".join(f"{number} {what}" for what, number in counts.items())


if __name__ == "__main__":
    sys.exit(main())
