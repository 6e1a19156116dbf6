"""Models that a run reads but does not train: the teacher of a distillation, the reference of a preference loss.

An objective names the fields of the config that name these models' runs (`Objective.companions`). The parameters are
read once, split over the mesh by the same rules as those of the trained model, and passed to the compiled steps beside
the state: they are not donated, have no gradients and no optimizer state, and are in no checkpoint of this run. A
checkpoint has only their identity, and a run continues only with the same numbers.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import flax.struct
from jax.sharding import AbstractMesh, Mesh

from gptjax.config import ConfigError, get
from gptjax.config.named_functions import is_named
from gptjax.model.families import family_named, reading_family_of
from gptjax.parallel.context import check_context
from gptjax.parallel.expert import check_expert_axis
from gptjax.parallel.mesh import platform_of
from gptjax.parallel.pipeline import check_pipeline
from gptjax.parallel.placement import MeshPlacement
from gptjax.parallel.sharding import placed_params
from gptjax.settings import ModelSettings, Settings
from gptjax.training.checkpoints.format import hash_of_params
from gptjax.training.checkpoints.loading import load_params, saved_config, saved_metadata, saved_steps
from gptjax.training.checkpoints.run_metadata import MODEL_MAY_BE_OWN, check_same_model, check_tokenizer

COMPANIONS = "companions"  # key in the metadata of checkpoints and in history.jsonl: name → identity
Identity = dict[str, Any]  # 'step' of the checkpoint that was read, and 'digest' of its parameters


@flax.struct.dataclass
class Companion:
    """A model beside the trained one: its parameters, which are arguments of the steps, and its module."""

    params: Any
    model: Any = flax.struct.field(pytree_node=False)


@dataclasses.dataclass(frozen=True)
class Companions:
    """The companions of a run by name, and what identifies the parameters of each."""

    models: Mapping[str, Companion] = dataclasses.field(default_factory=dict)
    identities: Mapping[str, Identity] = dataclasses.field(default_factory=dict)


NO_COMPANIONS = Companions()


def abstract_companions(config: Settings, fields: Mapping[str, str], mesh: Mesh | AbstractMesh) -> dict[str, Companion]:
    """The companions of a run, with parameters as shapes and shardings.

    Args:
      config: of the run, resolved.
      fields: name of a companion → the field of the config that names its run.

    Raises:
      ConfigError: there is no such run, or its model cannot be read on this mesh or with these rows.
    """
    return {name: _abstract(config, field, mesh) for name, field in fields.items()}


def _abstract(config: Settings, field: str, mesh: Mesh | AbstractMesh) -> Companion:
    folder = get(config, field)
    if not folder:
        raise ConfigError(f"{field} = '': training.objective = {config.training.objective!r} needs the folder of a run")
    section = _read_here(saved_config(folder, field).model, config, f"{field} = {folder!r}", platform_of(mesh))
    family = reading_family_of(section)
    beside = dataclasses.replace(config, model=section)
    check_context(beside, mesh)
    check_expert_axis(beside, mesh)
    check_pipeline(beside, mesh, family.declarations)
    return Companion(placed_params(mesh, family.declarations), family.module(MeshPlacement(config.mesh)))


def _read_here(other: ModelSettings, config: Settings, source: str, platform: str) -> ModelSettings:
    """The `model` section of a companion, computed as this run computes: in its type, without dropout."""
    own, length = config.model, config.data.sequence_length
    for field in MODEL_MAY_BE_OWN:
        if is_named(name := getattr(other, field.removeprefix("model."))):
            raise ConfigError(f"{source}: its {field} = {name!r} names a function or class, which is not imported")
    if other.family != own.family:
        raise ConfigError(f"{source}: its model.family = {other.family!r} must be {own.family!r}, as that of this run")
    if other.vocab_size != own.vocab_size:
        raise ConfigError(
            f"{source}: its model.vocab_size = {other.vocab_size} must be {own.vocab_size}, as in this run"
        )
    if other.position == "learned" and other.max_positions < length:
        raise ConfigError(
            f"{source}: it reads at most {other.max_positions} tokens, but data.sequence_length = {length}"
        )
    changed = dataclasses.replace(
        other, dtype=own.dtype, dropout=0.0, attention_dropout=0.0, attention="auto", attention_block=0, layers="auto",
        remat="none", max_positions=max(other.max_positions, length),
    )  # fmt: skip
    return family_named(other.family).resolve(
        changed, platform=platform, vocab_size=other.vocab_size, sequence_length=length, packed=True
    )


def identities(config: Settings, fields: Mapping[str, str], saved: Mapping[str, Any] | None) -> dict[str, Identity]:
    """The identity of each companion: of the newest parameters at the start of a run, later of those it started with.

    saved: the metadata of this run's checkpoint; None: the run has none yet.

    Raises:
      ConfigError: there is no checkpoint, or a run continues and the checkpoint that it has used is gone or differs.
    """
    recorded = {} if saved is None else saved.get(COMPANIONS, {})
    return {name: _identity(get(config, field), field, recorded.get(name)) for name, field in fields.items()}


def _identity(folder: str, field: str, recorded: Identity | None) -> Identity:
    if recorded is not None and recorded["step"] not in (steps := saved_steps(folder, field)):
        raise ConfigError(
            f"{field} = {folder!r}: the checkpoint of step {recorded['step']}, which this run reads, is gone; there "
            f"are those of {', '.join(map(str, steps)) or 'no step'}"
        )
    metadata = saved_metadata(folder, field, "latest" if recorded is None else recorded["step"])
    if metadata is None:
        raise ConfigError(f"{field} = {folder!r}: must be the folder of a run with a checkpoint; it has none")
    found = {"step": metadata["step"], "digest": hash_of_params(metadata)}
    if recorded is not None and found != recorded:
        raise ConfigError(
            f"{field} = {folder!r}: the parameters of step {found['step']} are not those that this run has used so far "
            f"(digest {found['digest']}, must be {recorded['digest']}): name the same run, or use a new --workdir"
        )
    return found


def load_companions(
    config: Settings,
    fields: Mapping[str, str],
    companions: Mapping[str, Companion],
    saved: Mapping[str, Any] | None,
    tokenizer_hash: str,
) -> Companions:
    """Reads the parameters of every companion onto the devices.

    Args:
      config, fields: as for `abstract_companions`.
      companions: its result.
      saved: see `identities`.

    Raises:
      ConfigError: as for `identities`; or the tokenizer of a companion is not that of this run's data, or its arrays do
        not fit its config.
      CheckpointError: a checkpoint is damaged.
    """
    identity_of = identities(config, fields, saved)

    def loaded(name: str, companion: Companion) -> Companion:
        folder, field = get(config, fields[name]), fields[name]
        source = f"{field} = {folder!r}"

        def check(metadata: dict) -> None:
            check_tokenizer(metadata, tokenizer_hash, source)
            check_same_model(metadata, saved_config(folder, field), source)

        step = identity_of[name]["step"]
        params, _ = load_params(folder, step, companion.params, ema=None, check=check, setting=field)
        return dataclasses.replace(companion, params=params)

    return Companions({name: loaded(name, each) for name, each in companions.items()}, identity_of)
