"""Where a parameter of ours is in the tensors of transformers, declared once for reading and writing, and for slices.

    Tensor("model.layers.{layer}.self_attn.q_proj.weight", "layers/attention/query")
    Tensor("h.{layer}.attn.c_attn.weight", "layers/attention/key", order="in,out", parts=("query", "key", "value"))
    Tensor("model.layers.{layer}.mlp.experts.{expert}.up_proj.weight", "layers/feedforward/up")

The parameter's declaration says which of its axes are inputs and outputs. Theirs are matrices [out, in], as those of
torch.nn.Linear, or [in, out]; all axes of one side are one axis there, in the same order. A name with {layer} stands
for a tensor for each layer, and with {expert} for each expert; without {expert}, experts are the first axis.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from flax.traverse_util import flatten_dict

from gptjax.model.parameters import LAYERS, Parameter
from gptjax.settings import ModelSettings

Index = tuple[slice, ...]


@dataclass(frozen=True)
class Tensor:
    """A parameter's place.

    Attributes:
      name: theirs, with {layer} and {expert} where there is one tensor for each.
      path: ours.
      order: the sides of a matrix there.
      parts: names of our parameters that are parts of this tensor along its outputs, in order, this one among them;
        (): it has the tensor for itself.
      interleaved: the parts alternate after the first axis of the outputs, rather than follow one another.
      minus: is subtracted from our values there.
      single: whether it has a first axis of length 1 there.
    """

    name: str
    path: str
    order: Literal["out,in", "in,out"] = "out,in"
    parts: tuple[str, ...] = ()
    interleaved: bool = False
    minus: float = 0.0
    single: bool = False


@dataclass(frozen=True)
class Constant:
    """A tensor that follows from the settings, and is no parameter of ours: (settings → array).

    written: whether an export has it; transformers makes the others itself.
    """

    name: str
    value: Callable[[ModelSettings], np.ndarray]
    written: bool = True


@dataclass(frozen=True)
class _Group:
    """One axis of a tensor of theirs.

    Attributes:
      axes: the axes of ours that it consists of, by their number in a piece; -1: the alternating parts.
      sizes: their sizes.
      offset: where our part begins along it.
      whole: its length.
    """

    axes: tuple[int, ...]
    sizes: tuple[int, ...]
    offset: int
    whole: int


@dataclass(frozen=True)
class Place:
    """A `Tensor` with the declarations of the parameters that share it."""

    tensor: Tensor
    declared: Parameter
    siblings: tuple[Parameter, ...]  # those of `parts`, this one among them; or only this one

    @property
    def stacked(self) -> tuple[str, ...]:
        """The axes of ours over which there are several tensors."""
        axes = [axis for axis in self.declared.stack if axis in LAYERS]
        return (*axes, *(("experts",) if "{expert}" in self.tensor.name else ()))

    def names(self, first_layer: int) -> dict[tuple[int, ...], str]:
        """(layer, expert) → the tensor's name. first_layer: the number of the stack's first layer."""
        ranges = [range(self.declared.stack[axis]) for axis in self.stacked]
        named = {}
        for index in itertools.product(*ranges):
            numbers = dict(zip(("layer", "expert") if "layers" in self._kinds else ("expert",), index))
            numbers = {**numbers, **({"layer": numbers["layer"] + first_layer} if "layer" in numbers else {})}
            named[index] = self.tensor.name.format(**numbers)
        return named

    @property
    def count(self) -> int:
        """The number of tensors that have a piece of the parameter."""
        return math.prod(self.declared.stack[axis] for axis in self.stacked)

    @property
    def _kinds(self) -> tuple[str, ...]:
        return tuple("layers" if axis in LAYERS else axis for axis in self.stacked)

    @property
    def part(self) -> int:
        """Which of the parts it is."""
        return self.tensor.parts.index(self.tensor.path.split("/")[-1]) if self.tensor.parts else 0

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of the tensor there."""
        return ((1,) if self.tensor.single else ()) + tuple(group.whole for group in self._groups())

    def _groups(self) -> list[_Group]:
        """The axes of the tensor, in order."""
        declared, leading = self.declared, [axis for axis in self.declared.stack if axis not in self.stacked]
        groups = [_Group((n,), (declared.stack[axis],), 0, declared.stack[axis]) for n, axis in enumerate(leading)]
        n, m = len(leading), len(declared.inputs)
        sides = {"in": [], "out": []}  # type: dict[str, list[_Group]]
        if declared.inputs:
            sizes = tuple(declared.inputs.values())
            sides["in"] = [_Group(tuple(range(n, n + m)), sizes, 0, math.prod(sizes))]
        sides["out"] = [self._outputs(n + m)]
        # A lookup is [rows, width] everywhere.
        order = ("in", "out") if declared.kind == "lookup" else tuple(self.tensor.order.split(","))
        return [*groups, *(group for side in order for group in sides[side])]

    def _outputs(self, first: int) -> _Group:
        sizes = tuple(self.declared.outputs.values())
        axes = tuple(range(first, first + len(sizes)))
        lengths = [math.prod(each.outputs.values()) for each in self.siblings]
        if self.tensor.interleaved:
            count = len(self.siblings)
            return _Group((axes[0], -1, *axes[1:]), (sizes[0], count, *sizes[1:]), 0, sum(lengths))
        return _Group(axes, sizes, sum(lengths[: self.part]), sum(lengths))

    # --- reading

    def read(self, index: Index, name_of: Mapping[tuple[int, ...], str], get: Callable[[str], Any]) -> np.ndarray:
        """A slice of the parameter, float32.

        Args:
          index: a slice for each axis of the parameter.
          name_of: (layer, expert) → the tensor's name.
          get: name → an object with a shape that can be sliced; only the slices that are needed are read.
        """
        full = [range(*each.indices(size)) for each, size in zip(index, self.declared.shape)]
        axes = self.declared.axes
        outer = [full[axes.index(axis)] for axis in self.stacked]
        inner = [each for axis, each in zip(axes, full) if axis not in self.stacked]
        out = np.empty([len(each) for each in (*outer, *inner)], np.float32)
        for place in itertools.product(*(range(len(each)) for each in outer)):
            number = tuple(numbers[at] for numbers, at in zip(outer, place))
            out[place] = self._read_piece(inner, get(name_of[number]))
        if self.tensor.minus:
            out += np.float32(self.tensor.minus)
        return out

    def _read_piece(self, inner: list[range], tensor: Any) -> np.ndarray:
        windows: list[slice] = [slice(0, 1)] if self.tensor.single else []
        shape: list[int] = []
        within: list[Any] = []
        ours: list[int] = []
        for group in self._groups():
            wanted = inner[group.axes[0]]
            unit = math.prod(group.sizes[1:])
            windows.append(slice(group.offset + wanted.start * unit, group.offset + wanted.stop * unit))
            shape += [len(wanted), *group.sizes[1:]]
            within += [slice(None), *(self.part if axis < 0 else _slice(inner[axis]) for axis in group.axes[1:])]
            ours += [axis for axis in group.axes if axis >= 0]
        block = np.asarray(tensor[tuple(windows)]).reshape(shape)[tuple(within)]
        return block.transpose(np.argsort(ours))

    # --- writing

    def write(self, pieces: Mapping[str, np.ndarray]) -> np.ndarray:
        """The whole tensor, from a piece of each parameter that shares it, by path."""
        folder = self.tensor.path.rpartition("/")[0]
        paths = [f"{folder}/{part}".lstrip("/") for part in self.tensor.parts] or [self.tensor.path]
        places = [Place(self.tensor, each, self.siblings) for each in self.siblings]
        arrays = [place._as_there(pieces[path]) for place, path in zip(places, paths)]
        at = self._output_axis()
        if self.tensor.interleaved:
            joined = np.stack(arrays, axis=at + 1)
        else:
            joined = np.concatenate([a.reshape(*a.shape[:at], -1, *self._after(a, at)) for a in arrays], axis=at)
        joined = joined.reshape(self.shape)
        return joined - np.float32(self.tensor.minus) if self.tensor.minus else joined

    def _as_there(self, piece: np.ndarray) -> np.ndarray:
        """A piece of ours with its axes in their order, not yet flattened."""
        return piece.transpose([axis for group in self._groups() for axis in group.axes if axis >= 0])

    def _output_axis(self) -> int:
        """Where the axes of the outputs begin in `_as_there`."""
        before = 0
        for group in self._groups():
            if group.axes[0] == self._first_output:
                return before
            before += sum(axis >= 0 for axis in group.axes)
        raise AssertionError("every parameter has outputs")

    def _after(self, array: np.ndarray, at: int) -> tuple[int, ...]:
        """The axes of an array that follow those of the outputs."""
        return array.shape[at + len(self.declared.outputs) :]

    @property
    def _first_output(self) -> int:
        return sum(axis not in self.stacked for axis in self.declared.stack) + len(self.declared.inputs)


def _slice(numbers: range) -> slice:
    return slice(numbers.start, numbers.stop)


def places_of(tensors: list[Tensor], declarations: Mapping[str, Any]) -> dict[str, Place]:
    """Our path → its place, for the tensors whose parameters a model has.

    Raises:
      ValueError: a parameter has no place: the family's rules let a model through that its tensors cannot express.
    """
    declared = {"/".join(path): parameter for path, parameter in flatten_dict(dict(declarations)).items()}
    places = {}
    for tensor in tensors:
        if tensor.path not in declared:
            continue
        folder = tensor.path.rpartition("/")[0]
        paths = [f"{folder}/{part}".lstrip("/") for part in tensor.parts] or [tensor.path]
        places[tensor.path] = Place(tensor, declared[tensor.path], tuple(declared[path] for path in paths))
    if missing := sorted(declared.keys() - places.keys()):
        raise ValueError(f"no tensor is declared for {', '.join(missing)}")
    return places


def first_layers_of(path: str, model: ModelSettings) -> int:
    """The number, over all layers, of the first layer of the stack that a path is in."""
    return model.first_dense_layers if path.startswith("layers/") else 0


@dataclass(frozen=True)
class Written:
    """A tensor to write: its name, its shape, and how it is computed."""

    name: str
    shape: tuple[int, ...]
    value: Callable[[], np.ndarray]


def written_tensors(
    places: Mapping[str, Place], constants: list[Constant], model: ModelSettings, params: Mapping[str, Any]
) -> Iterator[Written]:
    """All tensors of a model, in the order of the layers. Nothing is computed before `value` is called."""
    flat = {"/".join(path): array for path, array in flatten_dict(dict(params)).items()}
    made = []
    for path, place in places.items():
        if place.part:
            continue  # the first part writes all
        folder = path.rpartition("/")[0]
        paths = [f"{folder}/{part}".lstrip("/") for part in place.tensor.parts] or [path]
        for index, name in place.names(first_layers_of(path, model)).items():

            def value(place: Place = place, paths: list[str] = paths, index: tuple[int, ...] = index) -> np.ndarray:
                return place.write({each: np.asarray(flat[each][index]) for each in paths})

            made.append((index[0] + first_layers_of(path, model) if index else -1, Written(name, place.shape, value)))
    for constant in (each for each in constants if each.written):
        array = constant.value(model)
        made.append((-1, Written(constant.name, array.shape, lambda array=array: array)))  # type: ignore[misc]
    made.sort(key=lambda numbered: numbered[0])
    for _, written in made:
        yield written
