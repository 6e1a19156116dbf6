"""Turns config.optimizer into an Optax transformation from gradients to updates.

The method, learning rate and weight decay of a parameter are its `Treatment` (see `treatments`).

`optimizer.name='my_ideas:make'` names your own method: a function in my_ideas.py in the current folder, or in any
installed module. It gets this section of the config and returns an Optax transformation from gradients to directions of
descent:

    def make(config): return optax.scale_by_rms(config.beta2, config.epsilon)

This module adds decay, rules, schedule and sign, as for the other methods, and shards its state: statistics that have
their parameter's shape are split like it.

Gradients are clipped before they reach the transformation, by `clip_by_global_norm`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from gptjax.config import ConfigError
from gptjax.config.named_functions import called, is_named, named_function
from gptjax.model.parameters import Parameter, abstract_params
from gptjax.model.tree import leaves_by_path, map_with_path
from gptjax.settings import OptimizerSettings
from gptjax.training.optimizers.adafactor import scale_by_adafactor
from gptjax.training.optimizers.moments import stored
from gptjax.training.optimizers.muon import scale_by_orthogonalization
from gptjax.training.optimizers.trained_layers import declared_for_updates, on_trained_layers
from gptjax.training.optimizers.treatments import Treatment, treatments_of


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
    scale = jnp.where(jnp.isfinite(norm), limit / jnp.maximum(norm, limit), jnp.nan)  # limit / infinity would be 0
    return jax.tree.map(lambda gradient: gradient * scale, gradients)


def _per_layer(x: jax.Array, numbers: list[float]) -> jax.Array:
    """The numbers, one per layer, shaped so that they multiply x along its first axis."""
    return jnp.asarray(numbers, x.dtype).reshape(-1, *(1,) * (x.ndim - 1))


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
