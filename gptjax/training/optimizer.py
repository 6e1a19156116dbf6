"""Turns config.optimizer into an Optax transformation: the method, learning rate and weight decay of each parameter.

Every parameter has a `Treatment`, decided by its declaration and the config's rules (`treatments_of`), printed at the
start of a run (`summarize`):

    method          adamw | muon | lion | adafactor | sgd | frozen, or your own (below). With `muon`, Muon updates
                    the matrices on a stack of layers, and AdamW everything else (embedding, positions, head, norms,
                    biases).
    learning_rate   factor on the method's rate: `muon_learning_rate` for Muon, `learning_rate` for all else; both
                    follow the same schedule.
    weight_decay    decoupled (Loshchilov and Hutter, arXiv:1711.05101) and multiplied by the learning rate. Matrices
                    and lookups decay. Vectors (norms and biases) decay only if a rule says so.

`optimizer.name='my_ideas:make'` names your own method: a function in my_ideas.py in the current folder, or in any
installed module. It gets this section of the config and returns an Optax transformation from gradients to directions of
descent:

    def make(config): return optax.scale_by_rms(config.beta2, config.epsilon)

This module adds decay, rules, schedule and sign, as for the other methods, and shards its state: statistics that have
their parameter's shape are split like it.

Gradients are clipped before they reach the transformation, by `clip_by_global_norm`.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Iterator, Mapping
from types import MappingProxyType
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from gptjax.config import ConfigError, check_rule
from gptjax.model.parameters import LAYERS, Parameter, abstract_params
from gptjax.settings import OptimizerSettings, Rule, allowed_values
from gptjax.training.adafactor import scale_by_adafactor
from gptjax.training.moments import stored
from gptjax.training.muon import scale_by_orthogonalization
from gptjax.training.trained_layers import declared_for_updates, on_trained_layers
from gptjax.tree import leaves_by_path, map_with_path
from gptjax.user_code import called, is_named, named_function

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
        if len(set(layers)) == 1:
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


def _names_of_layers(path: str, parameter: Parameter) -> list[tuple[str, str]]:
    """The names of each layer of 'layers/attention/query', counted from the first and from the last one, as in Python:
    'layers/3/attention/query' and 'layers/-1/attention/query'; empty if it is on no stack of layers."""
    layers = range(parameter.num_layers if STACK.search(path) else 0)
    return [(_path_of_layer(path, index), _path_of_layer(path, index - len(layers))) for index in layers]


def _path_of_layer(path: str, index: int) -> str:
    return STACK.sub(rf"\g<0>{index}/", path, count=1)


def make_optimizer(
    config_optimizer: OptimizerSettings,
    schedule_of_peak: Callable[[float], optax.Schedule],
    declared: Any,
    platform: str = "cpu",
    trains: Callable[[str], bool] = lambda path: True,
    kept: Mapping[str, np.ndarray] = MappingProxyType({}),
) -> optax.GradientTransformation:
    """The transformation from gradients to updates for parameters with these declarations.

    schedule_of_peak: peak learning rate -> schedule of it. platform: the platform of the devices that will compute.
    kept: path of a stack → its layers that have statistics, if not all (`trained_layers`).
    Gradients, parameters and updates are trees with None in place of frozen parameters (`trained.trained_only`).
    Statistics keep their parameter's path inside the state, and its shape apart from `kept`, so they can be sharded
    like it. A user's own optimizer gets whole stacks.
    """
    treatments, parameters = treatments_of(config_optimizer, declared, trains), leaves_by_path(declared)
    updated = leaves_by_path(declared_for_updates(declared, kept))
    methods = {path: treatment.method for path, treatment in treatments.items() if treatment.method != "frozen"}
    labels = map_with_path(lambda path, _: methods.get(path), declared)
    transforms: dict[str, optax.GradientTransformation] = {}
    for method in sorted(set(methods.values())):
        rate = config_optimizer.muon_learning_rate if method == "muon" else config_optimizer.learning_rate
        transforms[method] = optax.chain(
            _own_direction(method, config_optimizer, parameters)
            if is_named(method)
            else on_trained_layers(_direction(method, config_optimizer, updated, platform), kept),
            _decay_and_scale(treatments),
            optax.scale_by_learning_rate(schedule_of_peak(rate)),
        )
    return optax.partition(transforms, labels)


def clip_by_global_norm(gradients: Any, norm: jax.typing.ArrayLike, limit: float) -> Any:
    """Gradients scaled so that their global norm, given as `norm`, is at most `limit` (0: no clipping).

    The caller computes the norm once, since it is also a metric and the monitor's input. If the norm is not finite,
    every gradient becomes non-finite, not just some.
    """
    if not limit:
        return gradients
    scale = jnp.minimum(1.0, limit / jnp.maximum(norm, limit))
    return jax.tree.map(lambda gradient: gradient * scale, gradients)


def _per_layer(x: jax.Array, numbers: list[float]) -> jax.Array:
    """The numbers, one per layer, shaped so that they multiply x along its first axis."""
    return jnp.asarray(numbers, x.dtype).reshape(-1, *(1,) * (x.ndim - 1))


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


def _direction(
    method: str, config: OptimizerSettings, parameters: Mapping[str, Parameter], platform: str
) -> optax.GradientTransformation:
    """Gradient → direction of descent, before decay and learning rate."""
    first, second = config.first_moment_dtype, config.second_moment_dtype
    if method == "adamw":
        return stored(optax.scale_by_adam(config.beta1, config.beta2, config.epsilon), parameters, mu=first, nu=second)
    if method == "lion":  # Chen et al., arXiv:2302.06675
        return stored(optax.scale_by_lion(config.beta1, config.beta2), parameters, mu=first)
    if method == "sgd":
        return stored(optax.trace(config.momentum), parameters, trace=first)
    if method == "muon":
        # The iteration consists of large products, so it uses bfloat16, except on CPUs, where float32 is faster.
        compute = jnp.float32 if platform == "cpu" else jnp.bfloat16
        momentum = stored(optax.trace(config.momentum, nesterov=True), parameters, trace=first)
        return optax.chain(momentum, scale_by_orthogonalization(parameters, compute))
    factored = scale_by_adafactor(parameters)
    if not config.beta1:
        return factored
    return optax.chain(factored, stored(optax.ema(config.beta1, debias=False), parameters, ema=first))


def _own_direction(
    name: str, config: OptimizerSettings, parameters: Mapping[str, Parameter]
) -> optax.GradientTransformation:
    """The transformation that the user's function makes from the config, checked on the shapes of the parameters.

    Raises:
      ConfigError: there is no such function, it fails, or its result does not transform these parameters.
    """
    field, setting = "optimizer.name", f"optimizer.name = {name!r}"
    transformation = called(field, name, lambda: named_function(field, name, takes=1)(config))
    if not isinstance(transformation, optax.GradientTransformation):
        raise ConfigError(
            f"{setting}: must return an optax.GradientTransformation, not {type(transformation).__name__}"
        )
    params = abstract_params({path: parameter for path, parameter in parameters.items() if parameter.trained})

    def one_update(params: Any) -> tuple[Any, Any]:
        return transformation.update(params, transformation.init(params), params)

    updates, state = called(field, name, lambda: jax.eval_shape(one_update, params))
    for path, shape in params.items():
        made = updates.get(path) if isinstance(updates, dict) else None
        if (getattr(made, "shape", None), getattr(made, "dtype", None)) != (shape.shape, shape.dtype):
            raise ConfigError(f"{setting}: its update of {path} must be {shape.dtype}{list(shape.shape)}, got {made}")
    first = jax.eval_shape(transformation.init, params)
    if jax.tree.structure(state) != jax.tree.structure(first):  # type: ignore[operator]  # missing in JAX's stubs
        raise ConfigError(f"{setting}: the structure of its state must not change between updates")
    return transformation


def _decay_and_scale(treatments: dict[str, Treatment]) -> optax.GradientTransformation:
    """u → factor · (u + decay · p), with each parameter's factor and decay. Stateless."""

    def update_leaf(path: str, update: jax.Array, param: jax.Array) -> jax.Array:
        treatment = treatments[path]
        if treatment.per_layer:
            decays = _per_layer(param, [layer.weight_decay for layer in treatment.per_layer])
            frozen = [layer.method == "frozen" for layer in treatment.per_layer]
            rates = [0.0 if still else layer.learning_rate for still, layer in zip(frozen, treatment.per_layer)]
            return _per_layer(update, rates) * (update + decays * param)
        if treatment.weight_decay:
            update = update + treatment.weight_decay * param
        return update * treatment.learning_rate if treatment.learning_rate != 1.0 else update

    return optax.stateless(lambda updates, params: map_with_path(update_leaf, updates, params))
