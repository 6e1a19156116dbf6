"""Leaves out what XLA's plug-in for NVIDIA GPUs writes on a machine without their driver. Needs no JAX.

The plug-in compiles for GPUs on such a machine, too (`gptjax plan`), and is usually installed where the same
environment serves several machines. It writes from C++ when JAX is imported and when its devices are looked up, before
any setting of a log takes effect. So the stream's descriptor is replaced for a while.
"""

from __future__ import annotations

import contextlib
import importlib.abc
import importlib.util
import os
import sys
import tempfile
from collections.abc import Iterator
from importlib.machinery import ModuleSpec
from typing import Any

MESSAGES = (b"Could not find cuda drivers", b"All log messages before absl::InitializeLog")
PLUG_INS = ("jax_cuda12_plugin", "jax_cuda13_plugin")


@contextlib.contextmanager
def without_driver_messages() -> Iterator[None]:
    """In the block, the messages that there is no driver are left out of stderr; all others come at its end."""
    sys.stderr.flush()
    kept = os.dup(2)
    with tempfile.TemporaryFile() as messages:
        os.dup2(messages.fileno(), 2)
        try:
            yield
        finally:
            sys.stderr.flush()
            os.dup2(kept, 2)
            os.close(kept)
            messages.seek(0)
            for line in messages:
                if not any(part in line for part in MESSAGES):
                    os.write(2, line)


def import_jax_without_them() -> None:
    """Makes the first import of JAX in this process leave them out, if the plug-in is installed."""
    if "jax" not in sys.modules and any(importlib.util.find_spec(name) for name in PLUG_INS):
        sys.meta_path.insert(0, _Finder())


class _Finder(importlib.abc.MetaPathFinder):
    """Finds JAX like everyone else, and then wraps the running of its module. It does so once."""

    def find_spec(self, name: str, path: Any, target: Any = None) -> ModuleSpec | None:
        if name != "jax":
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(name)
        if spec is None or spec.loader is None:
            return spec
        run = spec.loader.exec_module

        def quietly(module: Any) -> None:
            with without_driver_messages():
                run(module)

        spec.loader.exec_module = quietly  # type: ignore[method-assign]
        return spec
