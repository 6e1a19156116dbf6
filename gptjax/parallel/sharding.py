"""The table that says how parameters are split: names of their axes → axes of the mesh.

A parameter's declaration names its axes (gptjax/model/parameters.py). Matrices are split twice: along the residual
stream over `fsdp` (the compiler gathers them where they are used and scatters the gradients), and along heads and
feed-forward columns over `tensor` (one all-reduce per sub-layer). Vectors are replicated, except biases of split axes.
Layers are split over `pipeline` (gptjax/parallel/pipeline.py). Parameters outside of layers are split over it as over
`fsdp`, and so are those of first layers of another kind, which belong to no stage.

Devices along `expert` and `context` multiply different tokens by the same matrices. If `fsdp` splits matrices, they are
therefore also split over these axes (`joined`). Otherwise each device of such a group would gather the same numbers by
itself, often from other nodes.

A lookup table is split along its width, never along its rows: for a table that is split by rows, the compiler would
gather the whole table.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
from jax.sharding import AbstractMesh, Mesh, NamedSharding, PartitionSpec

from gptjax.config import ConfigError
from gptjax.model.int8 import Int8
from gptjax.model.parameters import LAYERS, Parameter, abstract_params
from gptjax.model.tree import map_with_path
from gptjax.parallel.mesh import BATCH_AXES, compiler_axes

P = PartitionSpec
JOINING = ("expert", "context")  # axes that split parameters only together with `fsdp`
TILE = 16  # rows and columns of a matrix tile that shares one scale (training/optimizers/moments.py)


class Split(NamedTuple):
    """The mesh axes over which an axis of a parameter is split, depending on the parameter's kind. Empty: not split."""

    matrix: tuple[str, ...] = ()
    lookup: tuple[str, ...] = ()
    vector: tuple[str, ...] = ()


TABLE: dict[str, Split] = {
    # D, the residual stream
    "embed": Split(matrix=("pipeline", "fsdp", *JOINING), lookup=("pipeline", "fsdp", "tensor")),
    "heads": Split(matrix=("tensor",), vector=("tensor",)),  # N, of queries
    "kv_heads": Split(matrix=("tensor",), vector=("tensor",)),  # K, of keys and values
    "head": Split(),  # H, inside of a head
    "mlp": Split(matrix=("tensor",), vector=("tensor",)),  # F, feed-forward columns
    "experts": Split(matrix=("expert",)),  # E, of a mixture
    "router": Split(),  # E, of the router: few
    "vocab": Split(matrix=("tensor",), vector=("tensor",)),  # V
    "class": Split(),  # C, of a classifier: few
    "position": Split(),
    "rank": Split(),  # r, of an adapter: few
    "layers": Split(matrix=("pipeline",), lookup=("pipeline",), vector=("pipeline",)),  # L
    "first_layers": Split(),  # those before them that belong to no stage: few
}
# What a message calls the numbers along an axis, and the field that decides how many there are.
_NUMBERS = {
    "embed": "numbers of the residual stream (model.width)",
    "heads": "heads of queries (model.num_heads)",
    "kv_heads": "heads of keys and values (model.num_kv_heads)",
    "mlp": "feed-forward columns (model.feedforward_width)",
    "experts": "experts (model.num_experts)",
    "vocab": "words of the vocabulary (model.vocab_size)",
    "layers": "layers (model.num_layers)",
}


def joined(row: tuple[str, ...], size: int, mesh: Mesh | AbstractMesh) -> tuple[str, ...]:
    """Those mesh axes of a table entry that split an axis of `size` numbers on this mesh.

    JOINING split it only if `fsdp` does, and the last ones only if they divide the size.
    """
    if "fsdp" not in row:
        return row
    always = tuple(axis for axis in row if axis not in JOINING)
    joining = [axis for axis in row if axis in JOINING and mesh.shape["fsdp"] > 1 and mesh.shape[axis] > 1]
    while joining and size % math.prod(mesh.shape[axis] for axis in (*always, *joining)):
        joining.pop()
    return (*always, *joining)


def spec_of(parameter: Parameter, mesh: Mesh | AbstractMesh) -> PartitionSpec:
    """How a parameter is split. If two of its axes need the same axis of the mesh, the first one gets it.

    Raises:
      ConfigError: an axis of the parameter is not in the table.
    """
    entries: list[tuple[str, ...]] = []
    for axis, size in zip(parameter.axes, parameter.shape):
        if axis not in TABLE:
            raise ConfigError(
                f"{parameter.where}: the axis {axis!r} of this parameter has no row in TABLE of "
                f"gptjax/parallel/sharding.py: add one that says over which mesh axes it is split, or use one of "
                f"{', '.join(TABLE)}"
            )
        taken = {name for entry in entries for name in entry}
        names = joined(getattr(TABLE[axis], parameter.kind), size, mesh)
        entries.append(tuple(name for name in names if name not in taken))
    if parameter.num_layers % mesh.shape["pipeline"]:  # statistics of some layers of a stack, which no stages share
        entries = [() if axis in LAYERS else entry for axis, entry in zip(parameter.axes, entries)]
    return _spec(entries)


def update_spec(parameter: Parameter, mesh: Mesh | AbstractMesh) -> PartitionSpec:
    """How a parameter's optimizer state is split with `mesh.zero1`: like the parameter, and also over `data`.

    Layers are split if their number divides, so that each device updates whole matrices; otherwise the longest axis
    that divides is split. If none does, the state is split as the parameter is.
    """
    spec = spec_of(parameter, mesh)
    entries = [_mesh_axes(entry) for entry in (*spec, *(None,) * (len(parameter.shape) - len(spec)))]
    ways = [math.prod(mesh.shape[name] for name in (*entry, "data")) for entry in entries]
    divisible = [number for number, size in enumerate(parameter.shape) if size % ways[number] == 0]
    if not divisible:
        return spec
    chosen = max(divisible, key=lambda number: (parameter.axes[number] in LAYERS, parameter.shape[number]))
    entries[chosen] = (*entries[chosen], "data")
    return _spec(entries)


def pinned_for_update(gradients: Any, declared: Any) -> Any:
    """Pins the gradients to the split of the optimizer's state (`mesh.zero1`): each device keeps only its part."""
    mesh = jax.sharding.get_abstract_mesh()
    if mesh.empty:
        return gradients
    return jax.tree.map(
        lambda parameter, x: jax.lax.with_sharding_constraint(x, update_spec(parameter, mesh)), declared, gradients
    )


def _spec(entries: list[tuple[str, ...]]) -> PartitionSpec:
    """The partition specification from the mesh axes of every axis of an array."""
    while entries and not entries[-1]:
        entries.pop()
    return P(*(entry[0] if len(entry) == 1 else entry or None for entry in entries))


def _mesh_axes(entry: str | tuple[str, ...] | None) -> tuple[str, ...]:
    if entry is None:
        return ()
    return entry if isinstance(entry, tuple) else (entry,)


def params_sharding(mesh: Mesh | AbstractMesh, declared: Any) -> Any:
    """NamedShardings for the declarations of a tree of parameters.

    Raises:
      ConfigError: a split axis is not divisible by the devices it is split over, or is not in the table.
    """

    problems: dict[tuple[str, str], str] = {}  # by mesh axes and axis of a parameter: the first parameter with both

    def leaf(path: str, parameter: Parameter) -> NamedSharding:
        spec = spec_of(parameter, mesh)
        for axis, size, entry in zip(parameter.axes, parameter.shape, spec):
            names = _mesh_axes(entry)
            if size % math.prod(mesh.shape[name] for name in names):
                over = " x ".join(f"mesh.{name} = {mesh.shape[name]}" for name in names if mesh.shape[name] > 1)
                problems.setdefault((over, axis), _indivisible(over, path, axis, size, mesh.size))
        return NamedSharding(mesh, spec)

    shardings = map_with_path(leaf, declared)
    if problems:
        raise ConfigError("; ".join(problems.values()))
    return shardings


def _indivisible(over: str, path: str, axis: str, size: int, devices: int) -> str:
    """'mesh.tensor = 4: must divide the 6 heads of queries (model.num_heads) of PATH, so it may be 1, 2, 3 or 6'."""
    numbers = _NUMBERS.get(axis, f"numbers along the axis {axis!r}")
    *most, last = [str(count) for count in range(1, min(size, devices) + 1) if size % count == 0]
    allowed = f"{', '.join(most)} or {last}" if most else last
    which = "the product" if " x " in over else "it"
    return f"{over}: must divide the {size:,} {numbers} of {path}, so {which} may be {allowed}"


def placed_params(mesh: Mesh | AbstractMesh, declared: Any) -> Any:
    """The declared parameters as shapes, each with its sharding; raises as `params_sharding`."""
    own = jax.tree.map(_of_stored, params_sharding(mesh, declared), abstract_params(declared))
    return jax.tree.map(
        lambda shape, sharding: jax.ShapeDtypeStruct(shape.shape, shape.dtype, sharding=sharding),
        *(abstract_params(declared), own),
    )


def _of_stored(sharding: NamedSharding, shapes: Any) -> Any:
    """The shardings of what is stored of a parameter: an array, or 8-bit numbers and their scales, which are not split
    along the axes of length 1 over which numbers share them."""
    if not isinstance(shapes, Int8):
        return sharding
    entries = zip(shapes.scale.shape, sharding.spec)
    of_scale = _spec([() if size == 1 else _mesh_axes(entry) for size, entry in entries])
    of_both: Any = (sharding, NamedSharding(sharding.mesh, of_scale))
    return type(shapes)(*of_both)


def state_sharding(
    mesh: Mesh | AbstractMesh, abstract_state: Any, declared: Any, zero1: bool = False, updated: Any = None
) -> Any:
    """NamedShardings for a whole training state whose parameters have these declarations.

    zero1: everything except the parameters is also split over `data` (`update_spec`). updated: the declarations of what
    the optimizer has statistics of; None: of all parameters.

    Optimizer statistics mirror the parameters inside Optax's tuples, as nested dicts with the same keys. A leaf in a
    parameter's place is split like the parameter if it has its shape, or one number for each of its tiles. Everything
    else (counters, factored statistics) is replicated.

    Raises:
      ConfigError: a device's part of a parameter would not be whole tiles.
    """
    copied, whole = replicated(mesh), abstract_params(declared)

    def place(tree: Any, shapes: Any, shardings: Any) -> Any:
        if isinstance(shapes, Mapping) and isinstance(tree, Mapping):
            return {key: place(tree[key], shapes[key], shardings[key]) for key in tree}
        if isinstance(tree, Int8):
            return _of_stored(shardings, tree)
        return jax.tree.map(lambda x: _placed_like(x, shapes, shardings) or copied, tree)

    def placed(state: Any, shapes: Any, shardings: Any) -> Any:
        def place_mirror(tree: Any) -> Any:
            return place(tree, shapes, shardings) if _mirrors(tree, shapes) else copied

        return jax.tree.map(place_mirror, state, is_leaf=lambda tree: _mirrors(tree, shapes))

    def shardings(declared: Any) -> Any:
        if not zero1:
            return params_sharding(mesh, declared)
        return jax.tree.map(lambda parameter: NamedSharding(mesh, update_spec(parameter, mesh)), declared)

    if updated is None:
        state = placed(abstract_state, whole, shardings(declared))
    else:
        of_updates = placed(abstract_state.opt_state, abstract_params(updated), shardings(updated))
        state = placed(abstract_state.replace(opt_state=()), whole, shardings(declared)).replace(opt_state=of_updates)
    return state.replace(params=params_sharding(mesh, declared)) if zero1 else state


def _placed_like(x: Any, parameter: Any, sharding: Any) -> NamedSharding | None:
    """The parameter's sharding, for an array with one number for each of its elements or for each tile of a matrix.

    Raises:
      ConfigError: the devices' parts of the parameter are not whole tiles.
    """
    shape = getattr(parameter, "shape", None)
    if x.shape == shape:
        return sharding
    if shape is None or len(shape) < 2 or len(x.shape) != len(shape):
        return None
    if any(number not in (size, -(-size // TILE)) for number, size in zip(x.shape, shape)):
        return None
    for number, size, entry in zip(x.shape, shape, sharding.spec):
        ways = math.prod(sharding.mesh.shape[name] for name in _mesh_axes(entry))
        if number != size and ways > 1 and size % (TILE * ways):
            over = " x ".join(f"mesh.{name} = {sharding.mesh.shape[name]}" for name in _mesh_axes(entry))
            raise ConfigError(
                f"optimizer.first_moment_dtype and optimizer.second_moment_dtype = 'int8' share scales among {TILE} x "
                f"{TILE} numbers: {over} must divide an axis of {size} numbers into multiples of {TILE}"
            )
    return sharding


def _mirrors(tree: Any, params: Any) -> bool:
    """Whether `tree` is a nested dict with the keys of `params`; an optimizer may have left some out."""
    if not isinstance(tree, Mapping):
        return False
    return tree.keys() == params.keys() and all(
        _mirrors(tree[key], inner) or not jax.tree.leaves(tree[key])
        for key, inner in params.items()
        if isinstance(inner, Mapping)
    )


def batch_sharding(mesh: Mesh | AbstractMesh, leading_axes: int = 0, row_axes: int = 0) -> NamedSharding:
    """Splits rows over the batch axes, and tokens, the first axis of a row that has several axes, over `context`.

    leading_axes: number of axes before the rows that are not split, such as the micro-batches of an accumulated step.
    """
    return NamedSharding(mesh, P(*(None,) * leading_axes, *rows_spec(row_axes)))


def rows_spec(row_axes: int, axes: tuple[str, ...] = BATCH_AXES) -> PartitionSpec:
    """How a batch [B, …] is split whose rows are arrays with `row_axes` axes. Its rows are split over `axes`."""
    return P(axes, *("context",)[:row_axes])


def split_vocabulary(x_BTD: jax.Array, head_DV: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Pins the two sides of the last product so that logits stay split over the vocabulary.

    Devices then send only sums and maxima of logits. Without the pins, each device would compute the logits of the
    whole vocabulary if the head is a tied embedding, because the embedding is split along its width. A vocabulary that
    does not divide equally is not split.
    """
    axes = compiler_axes(TABLE["vocab"].matrix)
    mesh = jax.sharding.get_abstract_mesh()
    ways = math.prod(mesh.shape[axis] for axis in axes)
    if ways == 1 or head_DV.shape[1] % ways:
        return x_BTD, head_DV
    pin = jax.lax.with_sharding_constraint
    tokens = P(compiler_axes(BATCH_AXES), compiler_axes(("context",)), None)
    splitting = joined(TABLE["embed"].matrix, head_DV.shape[0], mesh)
    return pin(x_BTD, tokens), pin(head_DV, P(compiler_axes(splitting), axes))


def replicated(mesh: Mesh | AbstractMesh) -> NamedSharding:
    return NamedSharding(mesh, P())
