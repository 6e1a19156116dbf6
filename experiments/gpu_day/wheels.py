"""Collects in .gpu_day/ (ignored by Git) what a GPU machine without a network needs besides this checkout.

  python experiments/gpu_day/wheels.py --text=input.txt

These are wheels of the packages that gptjax needs besides JAX, Flax, Optax, Orbax and SentencePiece, the revision of
this checkout, and the text of tinyshakespeare if --text names it.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
from pathlib import Path

from run import ROOT, revision

FOLDER = ROOT / ".gpu_day"
PACKAGES = ("grain>=0.2.18,<0.3", "array_record", "portpicker", "ml_collections>=1.1,<2", "tensorboardX>=2.6")
PLATFORMS = ("manylinux_2_28", "manylinux_2_27", "manylinux_2_24", "manylinux_2_17", "manylinux2014", "manylinux1")
EXPECTED = 64 * 2**20  # bytes; more of them is a mistake, such as a wheel with libraries of CUDA


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--python", default="3.12", help="Python version of the machine with the GPU")
    parser.add_argument("--packages", nargs="*", default=list(PACKAGES))
    parser.add_argument("--text", type=Path, help="tinyshakespeare's input.txt")
    arguments = parser.parse_args()
    wheels = FOLDER / "wheels"
    shutil.rmtree(wheels, ignore_errors=True)  # two versions of one package would stop the installation
    wheels.mkdir(parents=True)
    platforms = [f"--platform={platform}_x86_64" for platform in PLATFORMS]
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary=:all:", *platforms]
    command += [f"--python-version={arguments.python}", "--implementation=cp", f"--dest={wheels}", *arguments.packages]
    if subprocess.run(command).returncode:
        sys.exit("pip could not fetch all of the packages (see above)")
    (FOLDER / "revision").write_text(revision() + "\n")
    if arguments.text:
        shutil.copyfile(arguments.text, FOLDER / "input.txt")
    size = sum(path.stat().st_size for path in FOLDER.rglob("*") if path.is_file())
    if size > EXPECTED:
        sys.exit(f"{FOLDER.name}/ has {size / 2**20:.0f} MiB: no more than {EXPECTED / 2**20:.0f} are expected")
    print(f"{FOLDER.name}/: {len(list(wheels.iterdir()))} wheels, {size / 2**20:.1f} MiB in all")


if __name__ == "__main__":
    main()
