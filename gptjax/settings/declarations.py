"""How the fields of a config are declared: as dataclasses whose types say what is allowed.

A type such as `Count` carries a `Limit` beside int; `Literal` lists names; `OneOrOwn` allows a user's function besides.
The checks of a config (config/validation.py) and `--help_config` are derived from these declarations.
"""

from __future__ import annotations

import dataclasses
import typing
from collections.abc import Callable, Iterator, Mapping
from typing import Annotated, Any, Literal, TypeVar

from ml_collections import ConfigDict


@dataclasses.dataclass(frozen=True)
class Limit:
    """A condition on a number, and its description: 'must be at least 1'."""

    holds: Callable[[float], bool]
    wanted: str


@dataclasses.dataclass(frozen=True)
class OneOrOwn:
    """One of these names, or a user's function as 'module:function', which is checked where it is imported."""

    names: tuple[str, ...]


@dataclasses.dataclass(frozen=True)
class Duration:
    """A duration in steps, tokens, epochs or percent of the run.

    Attributes:
      least: the smallest number of steps.
      optional: whether '' is allowed, which means never.
    """

    least: int = 0
    optional: bool = False


def at_most(most: int) -> Limit:
    return Limit(lambda v: v <= most, f"must be at most {most:,}")


Count = Annotated[int, Limit(lambda v: v >= 1, "must be at least 1")]
Natural = Annotated[int, Limit(lambda v: v >= 0, "must not be negative")]
NotNegative = Annotated[float, Limit(lambda v: v >= 0, "must not be negative")]
Positive = Annotated[float, Limit(lambda v: v > 0, "must be positive")]
BelowOne = Annotated[float, Limit(lambda v: 0 <= v < 1, "must be in [0, 1)")]
UpToOne = Annotated[float, Limit(lambda v: 0 <= v <= 1, "must be in [0, 1]")]
Seed = Annotated[Natural, Limit(lambda v: v < 2**32, "must be below 2^32")]  # JAX's keys hold no more
Steps = Annotated[str, Duration()]
Interval = Annotated[str, Duration(least=1)]
OptionalSteps = Annotated[str, Duration(optional=True)]
OptionalInterval = Annotated[str, Duration(least=1, optional=True)]
Rule = tuple[str, str, float | bool]


class Section:
    """A group of fields, which can also be read by name as in a dict."""

    def __getitem__(self, name: str) -> Any:
        return getattr(self, name)

    def __iter__(self) -> Iterator[str]:
        return iter(self.keys())

    def keys(self) -> list[str]:
        return [field.name for field in dataclasses.fields(self)]  # type: ignore[arg-type]  # those below are dataclasses

    def items(self) -> list[tuple[str, Any]]:
        return [(name, getattr(self, name)) for name in self.keys()]


Kind = TypeVar("Kind", bound=Section)


def freeze_section(kind: type[Kind], values: Mapping[str, Any] | ConfigDict | Section) -> Kind:
    """Converts one section, such as ModelSettings."""
    hints = typing.get_type_hints(kind)
    return kind(
        **{
            name: freeze_section(hints[name], value) if hasattr(value, "items") else _tupled(value)
            for name, value in values.items()
        }
    )


def _tupled(value: Any) -> Any:
    """Converts lists to tuples, which can be hashed."""
    return tuple(map(_tupled, value)) if isinstance(value, list | tuple) else value


def thaw(settings: Section) -> ConfigDict:
    """Converts settings, or a section of them, to a ConfigDict that can be changed."""
    return ConfigDict(dataclasses.asdict(settings))  # type: ignore[call-overload]  # sections are dataclasses


@dataclasses.dataclass(frozen=True)
class Allowed:
    """The allowed values of a field, beyond its type.

    Attributes:
      names: the allowed names, if the field has names as values.
      own: whether a user's function, 'module:function', is allowed too.
      limits: the limits of a number.
      duration: the limits of a duration; None if the field is not a duration.
    """

    names: tuple[str, ...] = ()
    own: bool = False
    limits: tuple[Limit, ...] = ()
    duration: Duration | None = None

    def text(self) -> str:
        """Describes the allowed values in a few words; '' if the type says enough."""
        if self.names:
            return " | ".join([*self.names, *(["module:function"] if self.own else [])])
        words = (limit.wanted.replace("must be ", "").replace("must not be", "not") for limit in self.limits)
        return ", ".join(words)


def allowed_in(kind: type, prefix: str = "") -> Iterator[tuple[str, Allowed]]:
    """Yields (dotted field, its allowed values) for all fields of a section in their order."""
    for name, hint in typing.get_type_hints(kind, include_extras=True).items():
        if isinstance(hint, type) and issubclass(hint, Section):
            yield from allowed_in(hint, f"{prefix}{name}.")
            continue
        names = typing.get_args(hint) if typing.get_origin(hint) is Literal else ()
        extras = getattr(hint, "__metadata__", ())
        own = [extra for extra in extras if isinstance(extra, OneOrOwn)]
        yield (
            f"{prefix}{name}",
            Allowed(
                names=own[0].names if own else names,
                own=bool(own),
                limits=tuple(extra for extra in extras if isinstance(extra, Limit)),
                duration=next((extra for extra in extras if isinstance(extra, Duration)), None),
            ),
        )
