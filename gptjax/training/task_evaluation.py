"""Tasks during training: every evaluation scores some items of each task."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path

import jax
from absl import logging

from gptjax.data.mixture import parse_mixture
from gptjax.errors import ConfigError
from gptjax.evaluation.answering import ModelAnswerer
from gptjax.evaluation.loglikelihood import mesh_of
from gptjax.evaluation.results import averages_of
from gptjax.evaluation.tasks import Subject, find_tasks, run_tasks
from gptjax.inference.devices import decoding_mesh
from gptjax.model.families import family_of, merged_model
from gptjax.model.parameters import count_parameters
from gptjax.parallel.mesh import AbstractDevices, abstract_mesh, mesh_shape
from gptjax.parallel.sharding import params_sharding
from gptjax.settings import MeshSettings, Settings
from gptjax.tokenizer import Tokenizer
from gptjax.training.hardware import bytes_per_device
from gptjax.training.state import TrainState

# Objectives whose models write text.
WRITING = (
    *("next_token", "completion", "seq2seq", "instruction", "distillation", "preference", "grpo"),
    "on_policy_distillation",
)
PREFIX = "tasks/"  # the metrics' names are tasks/TASK/METRIC
SHARE = 1 / 8  # the largest share of a device's memory for a copy of the parameters beside the training state


def make_task_evaluation(
    config: Settings, tokenizer: Tokenizer, source_tokenizer: Tokenizer | None, begin_id: int | None
) -> Callable[[TrainState], dict[str, float]]:
    """Reads the tasks of `evaluation.tasks`, and returns a function from the state to scores by name.

    The function uses the moving average of the parameters if there is one. Without tasks it returns no scores.

    Args:
      config: the run's resolved config.
      begin_id: the token that documents start after.

    Raises:
      ConfigError: a card or data are missing or invalid, there are no evaluations, the model cannot generate text, or
        there are several processes.
    """
    evaluation, objective = config.evaluation, config.training.objective
    if not evaluation.tasks:
        return lambda state: {}
    here = f"evaluation.tasks = {evaluation.tasks!r}"
    if not evaluation.every:
        raise ConfigError(f"{here}: must be '' where evaluation.every = '', as every evaluation asks the tasks")
    if jax.process_count() > 1:
        raise ConfigError(f"{here}: must be '' in a run over several processes; evaluate its checkpoints instead")
    if objective not in WRITING or not family_of(config.model).writes:
        raise ConfigError(f"{here}: must be '' for training.objective = {objective!r}, whose models write no text")
    data = [Path(folder.strip()) for folder in evaluation.task_data.split(",") if folder.strip()]
    for folder in data:
        if not folder.is_dir():
            raise ConfigError(f"evaluation.task_data = {str(folder)!r}: there is no folder of this name")
    prepared = [folder for name, _ in parse_mixture(config.data.path) if (folder := Path(name)).is_dir()]
    tasks, missing = find_tasks(
        evaluation.tasks,
        data,
        also=prepared,
        limit=evaluation.task_items,
        option="evaluation.tasks",
        data_option="evaluation.task_data",
    )
    if missing:
        logging.warning("%s: the data of %s were not found", here, ", ".join(missing))

    def ask(state: TrainState) -> dict[str, float]:
        params, model = merged_model(config.model, state.best_params)
        params, plain = jax.device_get(params), dataclasses.replace(config, model=model)
        together = devices_together(config, jax.device_count(), bytes_per_device())
        mesh = decoding_mesh(f"tensor={together}") if together > 1 else None
        if mesh is not None:
            params = jax.device_put(params, params_sharding(mesh, family_of(model).declarations))
        with jax.set_mesh(mesh_of(jax.local_devices(), together)):  # replaces the mesh of training
            answerer = ModelAnswerer(params, plain, tokenizer, begin_id, source_tokenizer=source_tokenizer, mesh=mesh)
            results = run_tasks(tasks, answerer, Subject({}), None)
        found = {
            f"{PREFIX}{task}/{metric}": score["value"]
            for task, result in results.items()
            for metric, score in result["scores"].items()
            if score["value"] is not None
        }
        names = [name.strip() for name in evaluation.tasks.split(",")]
        averages = averages_of(names, results).items()
        return found | {f"{PREFIX}{name}/centred_average": average["value"] for name, average in averages}

    return ask


def devices_together(config: Settings, num_devices: int, bytes_of_device: int | None) -> int:
    """The number of devices over which the model is split to be asked.

    A model that trains on `mesh.tensor` devices is asked on at least as many. If `mesh.fsdp` or `mesh.pipeline` splits
    the training state, a copy of all parameters may not fit beside it: more of these devices then share the copy, so
    that it takes at most SHARE of the memory of each, or as little as the heads and the widths of the model allow.

    Args:
      num_devices: of the run.
      bytes_of_device: None: not known, then no more devices than `mesh.tensor`.
    """
    declared, shape = family_of(config.model).declarations, mesh_shape(config.mesh, num_devices)
    least = shape["tensor"]
    if bytes_of_device is None:
        return least
    chosen, splitting = least, shape["fsdp"] * shape["pipeline"]
    for share in (each for each in range(1, splitting + 1) if splitting % each == 0):
        together = share * least
        devices = AbstractDevices("", together)
        try:
            params_sharding(abstract_mesh(MeshSettings(data=1, tensor=together), devices), declared)
        except ConfigError:  # it divides no heads, or no columns
            continue
        chosen = together
        if 4 * count_parameters(declared).total <= SHARE * bytes_of_device * together:
            break
    return chosen
