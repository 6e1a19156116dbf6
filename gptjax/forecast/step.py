"""The needs of one training step on each device: memory, kernels and collectives.

  needs = needs_of(plan, hardware)      compiled ahead of time, cached from an earlier compilation, or by formula

The figures of compiled steps are cached in the user's cache folder by everything on which the program depends: the
config, the devices, this code and the compiler. Each shape is therefore compiled once.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import importlib.metadata
import json
import platform
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
from jax.sharding import Mesh

import gptjax
from gptjax.config import flatten
from gptjax.errors import ConfigError
from gptjax.files import write_aside
from gptjax.files.folders import cache_folder
from gptjax.files.json_files import parsed
from gptjax.forecast.hardware import Hardware, target_config
from gptjax.forecast.kernels import Kernel, kernels_of
from gptjax.forecast.memory import Memory, memory_of
from gptjax.forecast.program import parse_program
from gptjax.parallel.traffic import Collective, collectives_of
from gptjax.planning import Plan
from gptjax.training.checkpoints.run_metadata import own_code

# The program does not depend on these fields.
_NOT_COMPILED = (
    *("seed", "data.path", "data.workers", "data.prefetch", "data.verify", "optimizer.learning_rate"),
    *("optimizer.muon_learning_rate", "schedule.", "training.duration", "training.init_from", "training.profile"),
    *("checkpoint.", "evaluation.", "logging."),
)
_FORM = 2  # format of the cached files


@dataclasses.dataclass(frozen=True)
class Needs:
    """The needs of one step on each device.

    Attributes:
      source: 'compiled' or 'formula'.
      compile_seconds: the seconds that its compilation took.
      versions: versions of the libraries that compiled it.
    """

    source: str
    memory: Memory
    kernels: tuple[Kernel, ...]
    collectives: tuple[Collective, ...]
    compile_seconds: float = 0.0
    versions: Mapping[str, str] = dataclasses.field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        return {
            "source": self.source,
            "memory": dataclasses.asdict(self.memory),
            "kernels": [list(kernel) for kernel in self.kernels],
            "collectives": [list(collective) for collective in self.collectives],
            "compile_seconds": self.compile_seconds,
            "versions": dict(self.versions),
        }

    @classmethod
    def from_json(cls, saved: Mapping[str, Any]) -> Needs:
        """Raises KeyError, TypeError or ValueError for a text that `to_json` did not write."""
        return cls(
            str(saved["source"]),
            Memory(**{name: int(size) for name, size in saved["memory"].items()}),
            tuple(
                Kernel(str(kind), float(flops), bool(float8), float(moved), int(times), int(parts))
                for kind, flops, float8, moved, times, parts in saved["kernels"]
            ),
            tuple(
                Collective(str(kind), int(size), tuple(map(int, group)), int(times))
                for kind, size, group, times in saved["collectives"]
            ),
            float(saved["compile_seconds"]),
            {str(name): str(version) for name, version in saved["versions"].items()},
        )


def compiled_needs(plan: Plan, hardware: Hardware) -> Needs:
    """Compiles the step of a plan for its devices, or reads the cached result of an earlier compilation.

    The plan's devices are those of `devices.py`.
    """
    file = cache_folder() / "plans" / f"{_identity(plan, hardware)}.json"
    if (kept := _read(file)) is not None:
        return kept
    started = time.perf_counter()
    assert isinstance(plan.mesh, Mesh)
    with jax.set_mesh(plan.mesh):
        compiled = plan.trainer.compile_train_step(plan.abstract_batch)
    seconds = time.perf_counter() - started
    needs = read_needs(plan, compiled, seconds)
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        with write_aside(file) as out:
            out.write(json.dumps(needs.to_json()).encode())
    except OSError:  # without write permission, nothing is cached
        pass
    return needs


def read_needs(plan: Plan, compiled: jax.stages.Compiled, seconds: float = 0.0) -> Needs:
    """The figures of a compiled step."""
    text = compiled.as_text() or ""
    program = parse_program(text)
    sent = _merged(collectives_of(text, plan.mesh.size))
    memory = memory_of(plan, compiled, program)
    return Needs("compiled", memory, tuple(kernels_of(program, plan.platform == "cpu")), sent, seconds, _versions())


def _merged(collectives: list[Collective]) -> tuple[Collective, ...]:
    """Merges equal collectives into one with more runs."""
    times: dict[Collective, int] = {}
    for each in collectives:
        alike = each._replace(times=0)
        times[alike] = times.get(alike, 0) + each.times
    return tuple(each._replace(times=count) for each, count in times.items())


def _read(file: Path) -> Needs | None:
    """The cached needs; None if there are none, or they cannot be read."""
    try:
        return Needs.from_json(parsed(file.read_bytes(), str(file), "delete it"))
    except (OSError, ConfigError, KeyError, TypeError, ValueError, AttributeError):
        return None


def _identity(plan: Plan, hardware: Hardware) -> str:
    """A hash of everything on which the compiled program depends."""
    fields = {
        field: value
        for field, value in flatten(plan.config).items()
        if not any(field == name or (name[-1] == "." and field.startswith(name)) for name in _NOT_COMPILED)
    }
    device = target_config(hardware) if hardware.target else f"{hardware.kind} {platform.machine()}"
    beside = {name: str(companion.model) for name, companion in plan.trainer.companions.items()}
    facts = [_FORM, fields, dict(plan.mesh.shape), device, _versions(), _own_files(), own_code(plan.config), beside]
    return hashlib.sha256(json.dumps(facts, sort_keys=True, default=str).encode()).hexdigest()[:24]


def _versions() -> dict[str, str]:
    found = {}
    for package in ("jax", "jaxlib", "jax-cuda12-pjrt", "jax-cuda13-pjrt", "flax", "optax"):
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


@functools.cache
def _own_files() -> str:
    """A hash of the files that define a step, so that a changed model is compiled again."""
    root, digest = Path(gptjax.__file__).parent, hashlib.sha256()
    for folder in ("model", "parallel", "training", "forecast"):
        for file in sorted((root / folder).rglob("*.py")):
            digest.update(file.read_bytes())
    return digest.hexdigest()
