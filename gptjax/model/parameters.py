"""A parameter is declared once, in the line of a module that makes it.

    weight = matrix(self, "gate", {"embed": width}, {"mlp": inner}, input_init(config))
    bias = vector(self, "gate_bias", {"mlp": inner})
    table = lookup(self, "embedding", {"vocab": size}, {"embed": width}, input_init(config))

Such a line returns the array. It gives the parameter's kind, shape, initializer and names of axes, and is all that a
new parameter needs. The rest of the project reads these declarations:

    parallel/sharding.py                over which devices it is split: one table from names of axes to axes of the mesh
    training/optimizers/optimizer.py    what Muon orthogonalizes, and that vectors are not decayed
    training/optimizers/adafactor.py    which matrices are factored
    model/flops.py                      how many numbers a product multiplies
    inference/decode.py                 along which axes 8-bit weights share a scale

`declarations_of(module, ...)` collects them into a nested dict like that of the parameters, without computing anything.

The names of axes in use: `embed` (the residual stream, D), `heads` (N), `kv_heads` (K), `head` (H), `mlp` (F), `vocab`
(V), `class` (C), `position`, and those of LAYERS (L), which `stacked` puts in front. A new name needs a row in the
table of parallel/sharding.py.
"""

from __future__ import annotations

import contextlib
import contextvars
import dataclasses
import inspect
import math
import operator
import sys
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Literal

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax.traverse_util import flatten_dict, unflatten_dict

from gptjax.config import ConfigError
from gptjax.model.int8 import WidenedInt8, quantize
from gptjax.model.one_row import OutputsFirst

Axes = Mapping[str, int]  # name → size, in the order of the array's axes
LAYERS = ("layers", "first_layers")  # axes along which a stack has consecutive layers


@dataclasses.dataclass(frozen=True)
class Parameter:
    """The declaration of an array [*stack, *inputs, *outputs].

    Attributes:
      kind: 'matrix': a product sums over its inputs. 'lookup': a table, whose inputs are indices of rows. 'vector':
        added to, or multiplied with, an array that has its axes (biases, scales of norms); it has only outputs.
      stack: axes along which there are several independent matrices, lookups or vectors.
      active: for a stack of experts, the number that a token uses; 0: not a stack of experts.
      trained: whether the optimizer updates it.
      adaptable: whether a low-rank adapter can be added to it (model/lora.py).
      stored: float32, or, for a parameter that is not trained, bfloat16 or int8.
      init: (key, shape, dtype) → array, for one member of the stack.
      stacked_as: the name of the stack's dict; '' without a stack.
      tied: whether a lookup is also the output matrix.
      where: the file and line of its declaration, for messages.
    """

    kind: Literal["matrix", "lookup", "vector"]
    inputs: Axes
    outputs: Axes
    init: Callable[..., jax.Array]
    stack: Axes = dataclasses.field(default_factory=dict)
    active: int = 0
    trained: bool = True
    adaptable: bool = False
    stored: str = "float32"
    tied: bool = False
    stacked_as: str = ""
    where: str = "?"

    def __post_init__(self) -> None:
        if self.kind != "vector" and not (self.inputs and self.outputs):
            raise ConfigError(
                f"{self.where}: a {self.kind} needs at least one input axis and one output axis; its inputs are "
                f"{dict(self.inputs)} and its outputs {dict(self.outputs)}"
            )

    @property
    def axes(self) -> tuple[str, ...]:
        """The name of each axis."""
        return (*self.stack, *self.inputs, *self.outputs)

    @property
    def num_layers(self) -> int:
        """The number of layers of its stack; 0: it belongs to no layer."""
        return next((self.stack[axis] for axis in LAYERS if axis in self.stack), 0)

    @property
    def shape(self) -> tuple[int, ...]:
        return (*self.stack.values(), *self.inputs.values(), *self.outputs.values())

    @property
    def size(self) -> int:
        return math.prod(self.shape)

    @property
    def active_size(self) -> int:
        """The number of elements that one token uses."""
        return self.size * self.active // self.stack["experts"] if self.active else self.size

    @property
    def shared_scale_axes(self) -> tuple[int, ...]:
        """The axes, counted from the end, along which rounded numbers may share a scale.

        These are the axes that a product sums over: the inputs of a matrix, or the width of a lookup, over which the
        output layer sums if the lookup is tied.
        """
        count = len(self.inputs) + len(self.outputs)
        summed = range(len(self.inputs)) if self.kind == "matrix" else range(len(self.inputs), count)
        return tuple(axis - count for axis in summed)

    def make(self, key: jax.Array) -> jax.Array:
        """A newly initialized array."""
        return self.init(key, self.shape, jnp.float32)

    def as_stored(self, x: Any) -> Any:
        """The array x in the form in which it is stored; x may already have this form."""
        if isinstance(x, WidenedInt8):
            return x
        if self.stored != "int8":
            return x.astype(self.stored)
        rounded = quantize(x, self.shared_scale_axes)
        return WidenedInt8(rounded.values, rounded.scale)

    @property
    def abstract(self) -> Any:
        """What is stored, as shapes."""
        array = jax.ShapeDtypeStruct(self.shape, jnp.float32)
        return array if self.stored == "float32" else jax.eval_shape(self.as_stored, array)

    def on_stack(self, axis: str, size: int, name: str) -> Parameter:
        """`size` such parameters along a new first axis, in the stack `name`."""
        return dataclasses.replace(self, stack={axis: size, **self.stack}, stacked_as=name)

    def as_matrices(self, x: jax.Array) -> jax.Array:
        """[*stack, *inputs, *outputs] → [S, in, out], S = 1 without a stack."""
        sides = (self.stack, self.inputs, self.outputs)
        return x.reshape(tuple(math.prod(side.values()) for side in sides))


# --- in a module ------------------------------------------------------------------------------------------------------


def matrix(
    module: nn.Module,
    name: str,
    inputs: Axes,
    outputs: Axes,
    init: Callable[..., jax.Array],
    *,
    stack: Axes | None = None,
    active: int = 0,
    adaptable: bool = False,
) -> jax.Array:
    """Declares the matrix `name` of `module` and returns it, [*stack, *inputs, *outputs]."""
    declared = Parameter(
        "matrix", inputs, outputs, init, stack=stack or {}, active=active, adaptable=adaptable, where=_caller(adaptable)
    )
    return _declare(module, name, declared)


def vector(
    module: nn.Module,
    name: str,
    axes: Axes,
    init: Callable[..., jax.Array] = nn.initializers.zeros,
    *,
    trained: bool = True,
) -> jax.Array:
    """Declares the vector `name` of `module` and returns it; without axes it is a single number."""
    return _declare(module, name, Parameter("vector", {}, axes, init, trained=trained, where=_caller()))


def lookup(
    module: nn.Module, name: str, rows: Axes, width: Axes, init: Callable[..., jax.Array], *, tied: bool = False
) -> jax.Array:
    """Declares the table `name` of `module` and returns it, [*rows, *width]; `tied`: it is also the output matrix."""
    return _declare(module, name, Parameter("lookup", rows, width, init, tied=tied, where=_caller()))


def stacked(module: nn.Module, name: str, size: int, block: nn.Module, *inputs: Any, axis: str = "layers") -> None:
    """Declares the parameters of `size` blocks like `block`, stacked on a first axis, each block from its own key.

    Args:
      inputs: what `block` is initialized with.
      axis: the name of the first axis.
    """

    def make(key: jax.Array) -> dict:
        with _recording() as one:
            params = jax.vmap(lambda key: block.init(key, *inputs)["params"])(jax.random.split(key, size))
        if (record := _current.get()) is not None:
            place = (*module.path, name)
            record.parameters |= {
                place + path: each.on_stack(axis, size, name) for path, each in one.parameters.items()
            }
            record.classes |= {place + path: module_class for path, module_class in one.classes.items()}
        return params

    module.param(name, make)


def _declare(module: nn.Module, name: str, parameter: Parameter) -> jax.Array:
    if (record := _current.get()) is not None:
        record.parameters[*module.path, name] = parameter
    given: Any = module.get_variable("params", name)
    if isinstance(given, OutputsFirst):  # Flax would refuse its shape
        return given  # type: ignore[return-value]
    return module.param(name, parameter.make)


def _caller(by_linear: bool = False) -> str:
    """Where the caller of this module's function was called; by_linear: that caller is `lora.linear`."""
    frame = sys._getframe(3 if by_linear else 2)
    return f"{frame.f_code.co_filename}, line {frame.f_lineno}"


# --- of a whole model -------------------------------------------------------------------------------------------------


@dataclasses.dataclass
class _Record:
    """The declarations that an initialization makes, and the classes of the modules that it calls, by path."""

    parameters: dict[tuple[str, ...], Parameter] = dataclasses.field(default_factory=dict)
    classes: dict[tuple[str, ...], type] = dataclasses.field(default_factory=dict)


_current: contextvars.ContextVar[_Record | None] = contextvars.ContextVar("record", default=None)  # being written


@contextlib.contextmanager
def _recording() -> Iterator[_Record]:
    record = _Record()
    token = _current.set(record)
    try:
        yield record
    finally:
        _current.reset(token)


def declarations_of(module: nn.Module, *inputs: Any, method: Any = None) -> dict[str, Any]:
    """The nested dict of `Parameter` for the module's parameters; nothing is computed.

    Args:
      inputs, method: what the module is initialized with.

    Raises:
      ConfigError: the module makes a parameter without declaring it.
    """

    def note_class(call: Callable, args: Any, kwargs: Any, context: Any) -> Any:
        if (record := _current.get()) is not None:
            record.classes[context.module.path] = type(context.module)
        return call(*args, **kwargs)

    def initialize() -> dict:
        return module.init(jax.random.key(0), *inputs, method=method).get("params", {})

    with _recording() as record, nn.intercept_methods(note_class):
        record.classes[()] = type(module)
        made = flatten_dict(jax.eval_shape(initialize))
    for path in made.keys() - record.parameters.keys():
        depth = max(depth for depth in range(len(path)) if path[:depth] in record.classes)
        raise ConfigError(
            f"{_place(record.classes[path[:depth]], path[depth])}: the parameter {'/'.join(path)!r} has no "
            "declaration: make it by matrix(...), vector(...) or lookup(...) of gptjax/model/parameters.py, which name "
            "its axes"
        )
    return unflatten_dict(record.parameters)


def _place(module_type: type, name: str) -> str:
    """The file and line in which a class mentions the parameter `name`."""
    try:
        file, (lines, first) = inspect.getsourcefile(module_type), inspect.getsourcelines(module_type)
    except (OSError, TypeError):  # typed into an interpreter
        return module_type.__qualname__
    found = (number for number, line in enumerate(lines) if f'"{name}"' in line or f"'{name}'" in line)
    return f"{file}, line {first + next(found, 0)}"


def abstract_params(declared: Any) -> Any:
    """The parameters as shapes."""
    return jax.tree.map(lambda parameter: parameter.abstract, declared)


@dataclasses.dataclass(frozen=True)
class ParameterCounts:
    """total; non_embedding: without lookups (input embedding, positions); multiplied: N of the 6 N FLOPs per token,
    which includes tied lookups; active: those that one token uses, lookups included; frozen: those of `multiplied`
    that are declared as not trained. For experts, the last three count only those that a token uses."""

    total: int
    non_embedding: int
    multiplied: int
    active: int
    frozen: int


def count_parameters(declared: Any) -> ParameterCounts:
    """Counts the parameters of a tree of declarations. The few parameters of norms and biases count as multiplied."""
    every = jax.tree.leaves(declared)
    non_embedding = sum(parameter.size for parameter in every if parameter.kind != "lookup")
    tied = sum(parameter.size for parameter in every if parameter.tied)
    total = sum(parameter.size for parameter in every)
    unused = sum(parameter.size - parameter.active_size for parameter in every)
    multiplied = (parameter for parameter in every if parameter.kind == "matrix" or parameter.tied)
    frozen = sum(parameter.active_size for parameter in multiplied if not parameter.trained)
    return ParameterCounts(total, non_embedding, non_embedding + tied - unused, total - unused, frozen)


def stack_sizes(declared: Any, axis: str = "layers") -> dict[str, int]:
    """The number of members of each stack of blocks, by its path."""
    sizes = {}
    for path, parameter in flatten_dict(declared).items():
        if axis in parameter.stack:
            sizes["/".join(path[: path.index(parameter.stacked_as) + 1])] = parameter.stack[axis]
    return sizes


# --- views of the arrays ----------------------------------------------------------------------------------------------


def head_DV(params: Mapping[str, Any]) -> jax.Array:
    """The output matrix [D, V]: the head, or the embedding if they are tied."""
    return params["head"] if "head" in params else params["embedding"].T


def unstack_layers(layers: Any, num_layers: int) -> list[Any]:
    """Splits a stacked tree such as params['layers'] into a list with one dict per layer.

    A list is returned unchanged: generation unstacks the layers once, since every step would otherwise copy each slice.
    """
    if isinstance(layers, list | tuple):
        return list(layers)
    return [jax.tree.map(operator.itemgetter(index), layers) for index in range(num_layers)]


def unstack(declared: dict[str, Any], params: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Returns declarations and parameters with each stack of layers replaced by a list of trees, one per layer."""

    def unstacked(name: str, inner: Any) -> tuple[Any, Any]:
        if not isinstance(inner, dict):
            return inner, params[name]
        one = next(iter(jax.tree.leaves(inner)), None)
        if one is None or one.stacked_as != name or not one.num_layers:
            return unstack(inner, params[name])
        return [inner] * one.num_layers, unstack_layers(params[name], one.num_layers)

    both = {name: unstacked(name, inner) for name, inner in declared.items()}
    return {name: one for name, (one, _) in both.items()}, {name: other for name, (_, other) in both.items()}
