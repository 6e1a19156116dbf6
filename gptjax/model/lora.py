"""Low-rank adapters (LoRA, arXiv:2106.09685): two small matrices per linear layer are trained, and the model is not.

    y = x W [+ bias] + s · dropout(x) A B        A [in, r] random, B [r, out] zero at the start
    s = alpha / r, or alpha / sqrt(r)            `model.lora_rslora` (arXiv:2312.03732)

With `model.lora_dora` (DoRA, arXiv:2402.09353), each column of W + s A B also has a trained length m, which starts as
the length of the column of W. The column's own length is a constant for the gradient (section 4.3 there):

    y = m / |W + s A B| · (x W + s x A B) [+ bias]

The adapter of the matrix 'layers/attention/query' is the dict 'layers/attention/query_lora' beside it, with the arrays
`a`, `b` and, for DoRA, `magnitude`. `linear`, by which blocks multiply, applies an adapter if the parameters have one.
The adapters' declarations are derived from those of the matrices (`with_adapters`), so the sharding table, the
optimizer and the counts treat them as all other parameters.

A routed expert has adapters of its own if `model.lora_target` matches the experts' matrices.

All other parameters are frozen, except those that `model.lora_also` names, and a classifier's head. Frozen matrices may
be stored in fewer bits (`model.lora_base`), as in QLoRA (arXiv:2305.14314), and are widened where they are multiplied.
"""

from __future__ import annotations

import dataclasses
import functools
import math
import re
import zlib
from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax.traverse_util import flatten_dict, unflatten_dict

from gptjax.config import ConfigError
from gptjax.model.dropout import dropout, fold_in
from gptjax.model.int8 import widened
from gptjax.model.parameters import Axes, Parameter, matrix, vector
from gptjax.model.precision import project
from gptjax.settings import ModelSettings

SUFFIX = "_lora"  # of the name of a matrix
A, B, MAGNITUDE = "a", "b", "magnitude"
RANK = "rank"  # the name of the axis
FIELDS = ("rank", "alpha", "rslora", "dora", "dropout", "target", "also", "base")
_DROPPED = {name: number for number, name in enumerate(("query", "key", "value", "output", "gate", "up", "down"))}


def check_adapters(model: ModelSettings) -> None:
    """Raises ConfigError unless the fields of adapters can be read, and are only set where there are adapters."""
    defaults = ModelSettings()
    for name in (f"lora_{field}" for field in FIELDS):
        if not model.lora_rank and model[name] != defaults[name]:
            raise ConfigError(f"model.{name} = {model[name]!r}: needs adapters, but model.lora_rank is 0")
    for name in ("lora_target", "lora_also"):
        try:
            re.compile(model[name])
        except (re.error, RecursionError, OverflowError) as error:
            raise ConfigError(f"model.{name} = {model[name]!r}: is not a regular expression ({error})") from error


def without_adapters(model: ModelSettings) -> ModelSettings:
    """The settings of the model that the adapters adapt."""
    defaults = ModelSettings()
    return dataclasses.replace(model, **{f"lora_{field}": defaults[f"lora_{field}"] for field in FIELDS})


def scale_of(model: ModelSettings) -> float:
    """s, the factor of A B."""
    return model.lora_alpha / (math.sqrt(model.lora_rank) if model.lora_rslora else model.lora_rank)


# --- in a module ------------------------------------------------------------------------------------------------------


def linear(
    module: nn.Module,
    name: str,
    x_BTI: jax.Array,
    inputs: Axes,
    outputs: Axes,
    init: nn.initializers.Initializer,
    *,
    has_bias: bool,
    dropout_keys_B: jax.Array | None = None,
) -> jax.Array:
    """x · the matrix `name` of `module`, which this call declares [+ its bias], with its adapter if there is one.

    Returns [B, T, O], where O is the product of the sizes of `outputs`. dropout_keys_B: for the adapter's dropout.
    """
    config: ModelSettings = module.config  # type: ignore[attr-defined]  # modules of blocks have it
    weight = matrix(module, name, inputs, outputs, init, adaptable=True)
    bias = vector(module, f"{name}_bias", outputs) if has_bias else None
    adapter: Any = module.get_variable("params", name + SUFFIX)
    if adapter is None:
        return project(x_BTI, weight, bias, config.matmul)
    multiply = functools.partial(project, matmul=config.matmul)
    y_BTO, scale = multiply(x_BTI, weight), scale_of(config)
    read_BTI = x_BTI
    if dropout_keys_B is not None and config.lora_dropout:
        # Numbers from 2^31 on, so that no other use of these keys folds them in.
        keys_B = fold_in(dropout_keys_B, jnp.uint32(2**31 + _DROPPED.get(name, len(_DROPPED))))
        read_BTI = dropout(x_BTI, config.lora_dropout, keys_B)
    added_BTO = project(project(read_BTI, adapter[A]), adapter[B]) * scale
    if MAGNITUDE in adapter:
        lengths_O = _lengths(weight.reshape(x_BTI.shape[-1], -1), adapter[A], adapter[B], scale)
        stretch_O = (adapter[MAGNITUDE].reshape(-1) / jax.lax.stop_gradient(lengths_O)).astype(y_BTO.dtype)
        # With dropout, the change of the length acts on the same inputs as the adapter does, as in PEFT.
        of_read_BTO = y_BTO if read_BTI is x_BTI else multiply(read_BTI, weight)
        added_BTO = (stretch_O - 1) * of_read_BTO + stretch_O * added_BTO
    y_BTO = y_BTO + added_BTO
    return y_BTO if bias is None else y_BTO + bias.reshape(-1).astype(y_BTO.dtype)


def _lengths(weight_IO: Any, a: jax.Array, b: jax.Array, scale: float) -> jax.Array:
    """The length of each column of W + s A B, [O] in float32, without an array of W's size for A B."""
    rank = a.shape[-1]
    a_IR, b_RO, weight_IO = a.reshape(-1, rank), b.reshape(rank, -1), widened(weight_IO, jnp.float32)
    cross_RO, gram_RR = a_IR.T @ weight_IO, a_IR.T @ a_IR
    squares_O = jnp.sum(weight_IO**2, axis=0) + jnp.sum(
        (2 * scale * cross_RO + scale**2 * gram_RR @ b_RO) * b_RO, axis=0
    )
    return jnp.sqrt(jnp.maximum(squares_O, jnp.finfo(jnp.float32).tiny))


# --- of a whole model -------------------------------------------------------------------------------------------------


def with_adapters(declared: dict[str, Any], config: ModelSettings, part: str = "") -> dict[str, Any]:
    """The declarations of a model with adapters, from those of the model.

    Args:
      part: the part of the parameters that another run provides; those outside of it are trained whole. '': all.

    Raises:
      ConfigError: `model.lora_target` or `model.lora_also` matches nothing that can be adapted or trained.
    """
    flat = flatten_dict(declared)
    paths = {path: "/".join(path) for path in flat}
    whole = {path for path in flat if part and path[0] != part}
    whole |= {path for path in flat if config.lora_also and re.fullmatch(config.lora_also, paths[path])}
    adaptable = [path for path, parameter in flat.items() if parameter.adaptable]
    target = config.lora_target
    chosen = {path for path in adaptable if (re.fullmatch(target, paths[path]) if target else not flat[path].active)}
    for field, found, of in (("lora_target", chosen, adaptable), ("lora_also", whole or not config.lora_also, flat)):
        if not found:
            raise ConfigError(
                f"model.{field} = {config[field]!r}: it matches no parameter for this use; it must match a full path, "
                f"such as {', '.join(paths[path] for path in list(of)[:6])}"
            )
    of_experts = min((paths[path] for path in chosen if flat[path].active), default="")
    for field in ("lora_dora", "lora_dropout"):
        if of_experts and config[field]:
            raise ConfigError(
                f"model.{field} = {config[field]!r}: routed experts have plain adapters, and model.lora_target = "
                f"{target!r} matches {of_experts}"
            )
    made: dict[tuple[str, ...], Parameter] = {}
    for path, parameter in flat.items():
        is_trained = parameter.trained and path in whole
        made[path] = dataclasses.replace(
            parameter, trained=is_trained, stored="float32" if is_trained else _stored(parameter, config.lora_base)
        )
        if path in chosen - whole:
            beside = (*path[:-1], path[-1] + SUFFIX)
            made |= {(*beside, name): each for name, each in _adapter(parameter, config).items()}
    return unflatten_dict(made)


def _adapter(parameter: Parameter, config: ModelSettings) -> dict[str, Parameter]:
    """The declarations of a matrix's adapter."""
    rank, bound = {RANK: config.lora_rank}, 1 / math.sqrt(math.prod(parameter.inputs.values()))

    def uniform(key: jax.Array, shape: tuple[int, ...], dtype: Any) -> jax.Array:
        """The distribution of PyTorch's linear layers, which PEFT uses."""
        return jax.random.uniform(key, shape, dtype, -bound, bound)

    place: Any = {"stack": parameter.stack, "stacked_as": parameter.stacked_as, "where": parameter.where}
    place["active"] = parameter.active
    made = {
        A: Parameter("matrix", parameter.inputs, rank, uniform, **place),
        B: Parameter("matrix", rank, parameter.outputs, nn.initializers.zeros, **place),
    }
    if config.lora_dora:
        made[MAGNITUDE] = Parameter("vector", {}, parameter.outputs, nn.initializers.ones, **place)
    return made


def _stored(parameter: Parameter, base: str) -> str:
    """How a frozen parameter is stored. Experts and parameters that the model uses in float32 stay float32. With int8,
    the linear layers of blocks are int8, and embedding and head are bfloat16."""
    exact = {"position", "router", "experts"} & {*parameter.axes}
    if parameter.adaptable and not exact:
        return base
    return "float32" if base == "float32" or parameter.kind == "vector" or exact else "bfloat16"


def base_of(params: Mapping[str, Any]) -> dict[str, Any]:
    """The tree without adapters: of parameters, or of declarations."""
    return {
        name: base_of(inner) if isinstance(inner, Mapping) else inner
        for name, inner in params.items()
        if not name.endswith(SUFFIX)
    }


def has_adapters(params: Mapping[str, Any]) -> bool:
    """Whether a tree of parameters has an adapter."""
    return any(
        name.endswith(SUFFIX) or (isinstance(inner, Mapping) and has_adapters(inner)) for name, inner in params.items()
    )


def unadapted(declared: Mapping[str, Any]) -> dict[str, Any]:
    """The declarations of the model without adapters, from those with adapters, in float32."""
    return jax.tree.map(lambda parameter: dataclasses.replace(parameter, stored="float32"), base_of(declared))


def completed(declared: dict[str, Any], base: Any, key: jax.Array) -> dict[str, Any]:
    """Parameters with these declarations: those of `base`, stored as declared, and newly initialized adapters."""
    flat, given = flatten_dict(declared), flatten_dict(base)
    params = {}
    for path, parameter in flat.items():
        if path in given:
            params[path] = parameter.as_stored(given[path])
        elif path[-1] != MAGNITUDE:
            params[path] = parameter.make(jax.random.fold_in(key, zlib.crc32("/".join(path).encode())))
    for path in flat.keys() - params.keys():  # the magnitudes of DoRA, which depend on the matrix
        of = (*path[:-2], path[-2].removesuffix(SUFFIX))
        weight_SIO = flat[of].as_matrices(widened(params[of], jnp.float32))
        params[path] = jnp.linalg.norm(weight_SIO, axis=1).reshape(flat[path].shape)
    return unflatten_dict(params)


def merged(config: ModelSettings, declared: dict[str, Any], params: Mapping[str, Any]) -> dict[str, Any]:
    """The parameters of the model without adapters that computes the same function, in float32.

    Args:
      declared: the declarations of `params`.
    """
    flat, scale = flatten_dict(declared), scale_of(config)

    def merge(path: tuple[str, ...], weight: Any, adapter: Mapping[str, Any] | None) -> jax.Array:
        weight = widened(weight, jnp.float32)
        if adapter is None:
            return weight
        beside = (*path[:-1], path[-1] + SUFFIX)
        a_SIR, b_SRO = (flat[*beside, name].as_matrices(adapter[name]) for name in (A, B))
        weight_SIO = flat[path].as_matrices(weight) + scale * (a_SIR @ b_SRO)
        if MAGNITUDE in adapter:
            magnitude_S1O = adapter[MAGNITUDE].reshape(len(weight_SIO), 1, -1)
            weight_SIO *= magnitude_S1O / jnp.linalg.norm(weight_SIO, axis=1, keepdims=True)
        return weight_SIO.reshape(weight.shape)

    def walk(path: tuple[str, ...], tree: Mapping[str, Any]) -> dict[str, Any]:
        return {
            name: walk((*path, name), inner)
            if isinstance(inner, Mapping)
            else merge((*path, name), inner, tree.get(name + SUFFIX))
            for name, inner in tree.items()
            if not name.endswith(SUFFIX)
        }

    return walk((), params)
