"""How each parameter is updated: its `Treatment`, from its declaration and the config's rules.

    method          adamw | muon | lion | adafactor | sgd | frozen, or your own (see `optimizer`). With `muon`, Muon
                    updates the matrices on a stack of layers, and AdamW everything else (embedding, positions, head,
                    norms, biases).
    learning_rate   factor on the method's rate: `muon_learning_rate` for Muon, `learning_rate` for all else; both
                    follow the same schedule.
    weight_decay    decoupled (Loshchilov and Hutter, arXiv:1711.05101) and multiplied by the learning rate. Matrices
                    and lookups decay. Vectors (norms and biases) decay only if a rule says so.

The treatments are printed at the start of a run (`summarize`).
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from gptjax.config import ConfigError, check_rule
from gptjax.config.named_functions import is_named
from gptjax.model.parameters import LAYERS, Parameter
from gptjax.model.tree import leaves_by_path
from gptjax.settings import OptimizerSettings, Rule, allowed_values

METHODS = allowed_values()["optimizer.name"].names
STACK = re.compile(rf"(?<![^/])({'|'.join(LAYERS)})/")  # in a path: the name of a stack of layers


@dataclasses.dataclass(frozen=True)
class Treatment:
    """How one parameter is updated; `learning_rate` is a factor, `weight_decay` the coefficient itself.

    per_layer: for a stacked parameter whose layers are treated differently, the treatment of each layer.
    """

    method: str
    learning_rate: float
    weight_decay: float
    size: int
    per_layer: tuple[Treatment, ...] = ()


def treatments_of(
    config_optimizer: OptimizerSettings, declared: Any, trains: Callable[[str], bool] = lambda path: True
) -> dict[str, Treatment]:
    """The treatment of every parameter of a tree of declarations, by path.

    `rules` is a sequence of (pattern, kind, value). The pattern must match a whole path; for each kind, the last
    matching rule decides. Values of learning_rate and weight_decay are factors on the configured value; freeze's is a
    bool. A pattern may name one layer of a stack: 'layers/3/attention/query' is layer 3 of 'layers/attention/query',
    and 'layers/-1/attention/query' its last layer. A parameter for which `trains` is false, or that is declared as not
    trained, is always frozen.

    Raises:
      ConfigError: the method is unknown, a rule is malformed or matches nothing, or everything is frozen.
    """
    if config_optimizer.name not in METHODS and not is_named(config_optimizer.name):
        raise ConfigError(f"optimizer.name = {config_optimizer.name!r}: expected one of {', '.join(METHODS)}")
    if config_optimizer.second_moment_dtype != "float32" and config_optimizer.name in ("lion", "adafactor", "sgd"):
        raise ConfigError(
            f"optimizer.second_moment_dtype = {config_optimizer.second_moment_dtype!r}: must be float32 with "
            f"optimizer.name = {config_optimizer.name!r}, which keeps no second moment of each number"
        )
    parameters = leaves_by_path(declared)
    names_of_layers = {path: _names_of_layers(path, parameter) for path, parameter in parameters.items()}
    every = [*parameters, *(name for layers in names_of_layers.values() for names in layers for name in names)]
    rules = [_checked_rule(rule, every) for rule in config_optimizer.rules]

    def treat(path: str, parameter: Parameter) -> Treatment:
        if not (of_layers := names_of_layers[path]):
            return treat_one((path,), parameter)
        layers = tuple(treat_one((path, *names), parameter) for names in of_layers)
        if len(set(layers)) == 1 or all(layer.method == "frozen" for layer in layers):
            return layers[0]
        method = next(layer.method for layer in layers if layer.method != "frozen")
        return Treatment(method, 1.0, 0.0, parameter.size, layers)

    def treat_one(names: tuple[str, ...], parameter: Parameter) -> Treatment:
        decay = 0.0 if parameter.kind == "vector" else 1.0
        chosen = {"learning_rate": 1.0, "weight_decay": decay, "freeze": False}
        chosen |= {kind: value for pattern, kind, value in rules if any(map(pattern.fullmatch, names))}
        method = config_optimizer.name
        if method == "muon" and not (parameter.kind == "matrix" and parameter.num_layers):
            method = "adamw"
        return Treatment(
            method="frozen" if chosen["freeze"] or not trains(names[0]) or not parameter.trained else method,
            learning_rate=chosen["learning_rate"],
            weight_decay=chosen["weight_decay"] * config_optimizer.weight_decay,
            size=parameter.size,
        )

    treatments = {path: treat(path, parameter) for path, parameter in parameters.items()}
    if all(treatment.method == "frozen" for treatment in treatments.values()):
        raise ConfigError(
            "optimizer.rules and training.objective freeze every parameter: there is nothing left to train"
        )
    return treatments


def summarize(treatments: dict[str, Treatment]) -> list[dict[str, Any]]:
    """Parameters grouped by equal treatment, largest group first: method, learning_rate (factor), weight_decay,
    num_parameters, and the paths."""
    groups: dict[tuple, dict[str, Any]] = {}
    for path, treatment in each_treatment(treatments):
        fields = {name: getattr(treatment, name) for name in ("method", "learning_rate", "weight_decay")}
        size = treatment.size
        group = groups.setdefault(tuple(fields.values()), {**fields, "num_parameters": 0, "paths": []})
        group["num_parameters"] += size
        group["paths"].append(path)
    return sorted(groups.values(), key=lambda group: -group["num_parameters"])


def each_treatment(treatments: Mapping[str, Treatment]) -> Iterator[tuple[str, Treatment]]:
    """(path, treatment); if the layers of a stack are treated differently, one pair for each layer."""
    for path, treatment in treatments.items():
        if not treatment.per_layer:
            yield path, treatment
        for index, layer in enumerate(treatment.per_layer):
            size = treatment.size // len(treatment.per_layer)
            yield _path_of_layer(path, index), dataclasses.replace(layer, size=size)


def _names_of_layers(path: str, parameter: Parameter) -> list[tuple[str, str]]:
    """The names of each layer of 'layers/attention/query', counted from the first and from the last one, as in Python:
    'layers/3/attention/query' and 'layers/-1/attention/query'; empty if it is on no stack of layers."""
    layers = range(parameter.num_layers if STACK.search(path) else 0)
    return [(_path_of_layer(path, index), _path_of_layer(path, index - len(layers))) for index in layers]


def _path_of_layer(path: str, index: int) -> str:
    return STACK.sub(rf"\g<0>{index}/", path, count=1)


def _checked_rule(rule: Rule, paths: list[str]) -> tuple[re.Pattern, str, float | bool]:
    check_rule(rule)
    text, kind, value = rule
    pattern = re.compile(text)
    if not any(pattern.fullmatch(path) for path in paths):
        some = ", ".join(paths[:6]) + (", …" if len(paths) > 6 else "")
        raise ConfigError(
            f"optimizer.rules has {rule!r}: it matches no parameter; it must match a full path, such as {some}"
        )
    return pattern, kind, value
