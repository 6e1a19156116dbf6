"""Runs one slice in a separate process: python worker.py PART OPTIONS ROWS, two values in JSON and a file to write.

Every row is written as soon as it is measured. The first row names the device and the versions.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import json
import platform
import sys

OUT_OF_MEMORY, NOT_SUPPORTED = 3, 4  # exit statuses


class NotSupported(Exception):
    """Something required is missing: a library, a kernel, a file. A second try would not find it either."""


def versions() -> dict[str, str]:
    found = {"python": platform.python_version()}
    for name in ("jax", "jaxlib", "flax", "optax", "torch", "nvidia-cudnn-cu13", "nvidia-cudnn-cu12"):
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def is_out_of_memory(error: Exception) -> bool:
    text = f"{type(error).__name__} {error}"
    return any(word in text for word in ("RESOURCE_EXHAUSTED", "OutOfMemoryError", "out of memory", "OUT_OF_MEMORY"))


def main() -> None:
    part, options, rows = sys.argv[1], json.loads(sys.argv[2]), sys.argv[3]
    measure = importlib.import_module(f"measure_{part}").measure
    with open(rows, "a", buffering=1, encoding="utf-8") as file:
        file.write(json.dumps({"versions": versions()}) + "\n")
        try:
            for row in measure(**options):
                file.write(json.dumps(row) + "\n")
        except NotSupported as error:
            print(error, file=sys.stderr)
            sys.exit(NOT_SUPPORTED)
        except Exception as error:
            if not is_out_of_memory(error):
                raise
            print(f"out of memory: {str(error)[:300]}", file=sys.stderr)
            sys.exit(OUT_OF_MEMORY)


if __name__ == "__main__":
    sys.modules["worker"] = sys.modules[__name__]  # the parts raise this module's NotSupported
    main()
