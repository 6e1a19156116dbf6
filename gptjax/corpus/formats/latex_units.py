"""Numbers and units of LaTeX's siunitx: \\SI{5}{\\kilo\\gram} → 5 kg, \\SIrange{1}{2}{\\kg} → 1 to 2 kg."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

from gptjax.corpus.formats.latex_signs import raised

_PREFIXES = {
    **{"yocto": "y", "zepto": "z", "atto": "a", "femto": "f", "pico": "p", "nano": "n", "micro": "µ", "milli": "m"},
    **{"centi": "c", "deci": "d", "deca": "da", "hecto": "h", "kilo": "k", "mega": "M", "giga": "G", "tera": "T"},
    **{"peta": "P", "exa": "E", "kibi": "Ki", "mebi": "Mi", "gibi": "Gi", "tebi": "Ti"},
}
_UNITS = {
    **{"metre": "m", "meter": "m", "second": "s", "gram": "g", "ampere": "A", "kelvin": "K", "mole": "mol"},
    **{"candela": "cd", "hertz": "Hz", "newton": "N", "pascal": "Pa", "joule": "J", "watt": "W", "coulomb": "C"},
    **{"volt": "V", "farad": "F", "ohm": "Ω", "siemens": "S", "weber": "Wb", "tesla": "T", "henry": "H", "lumen": "lm"},
    **{"lux": "lx", "becquerel": "Bq", "gray": "Gy", "sievert": "Sv", "litre": "L", "liter": "L", "minute": "min"},
    **{"hour": "h", "day": "d", "degree": "°", "arcminute": "′", "arcsecond": "″", "celsius": "°C", "degC": "°C"},
    **{"degreeCelsius": "°C", "electronvolt": "eV", "eV": "eV", "bar": "bar", "angstrom": "Å", "percent": "%"},
    **{"byte": "B", "bit": "bit", "decibel": "dB", "dB": "dB", "tonne": "t", "dalton": "Da", "astronomicalunit": "au"},
    **{"parsec": "pc", "year": "yr", "bel": "B", "um": "µm", "us": "µs", "uL": "µL", "degreekelvin": "K"},
}
_POWERS = {"squared": "²", "cubed": "³", "square": "²", "cubic": "³"}
_PART = re.compile(r"\\([A-Za-z]+)|\s+|([^\\\s]+)")


def unit(source: str) -> str:
    """The symbols of a unit: \\metre\\per\\second\\squared → m/s²."""
    shown, glue, power = "", "", ""
    for command, plain in _PART.findall(source.replace("~", " ").replace("{", "").replace("}", "").replace("$", "")):
        if command == "per":
            shown, glue = shown + "/", ""
        elif command in ("squared", "cubed"):
            shown += _POWERS[command]
        elif command in ("square", "cubic"):
            power = _POWERS[command]
        elif command in ("tothe", "raiseto"):
            shown += "^"
        elif command in _PREFIXES:
            shown, glue = shown + glue + _PREFIXES[command], ""
        elif command or plain:
            shown, glue, power = shown + glue + _UNITS.get(command, command or plain.replace(".", " ")) + power, " ", ""
    return shown


def _with_unit(number: str, symbols: str) -> str:
    return f"{number}{symbols}" if symbols in ("°", "′", "″") else f"{number} {symbols}".strip()


def _number(source: str) -> str:
    number = " ".join(source.replace("+-", " ± ").replace("\\pm", " ± ").split())
    return re.sub(r"(?<=\d)[eE]\+?(-?\d+)", lambda found: f" × 10{raised(found[1])}", number)


def _listed(numbers: str) -> str:
    parts = [_number(part) for part in numbers.split(";")]
    return ", ".join(parts[:-1]) + " and " + parts[-1] if len(parts) > 1 else parts[0]


# command → how many arguments it takes, and their text.
COMMANDS: dict[str, tuple[int, Callable[[Sequence[str]], str]]] = {
    "num": (1, lambda a: _number(a[0])),
    "ang": (1, lambda a: "".join(f"{part}{sign}" for part, sign in zip(a[0].split(";"), "°′″") if part)),
    "numrange": (2, lambda a: f"{_number(a[0])} to {_number(a[1])}"),
    "numlist": (1, lambda a: _listed(a[0])),
    **dict.fromkeys(("si", "unit"), (1, lambda a: unit(a[0]))),
    **dict.fromkeys(("SI", "qty"), (2, lambda a: _with_unit(_number(a[0]), unit(a[1])))),
    **dict.fromkeys(
        ("SIrange", "qtyrange"), (3, lambda a: f"{_number(a[0])} to {_with_unit(_number(a[1]), unit(a[2]))}")
    ),
    **dict.fromkeys(("SIlist", "qtylist"), (2, lambda a: _with_unit(_listed(a[0]), unit(a[1])))),
}
