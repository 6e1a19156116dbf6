"""The characters by which byte-level BPE writes bytes (GPT-2's, which most others use).

A byte whose character can be printed and is no space is written as that character of Latin-1. The others are written as
the characters from U+0100 on, in order. A vocabulary is then a list of printable words.
"""

_PRINTED = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
_OTHERS = [byte for byte in range(256) if byte not in _PRINTED]
BYTES = {chr(byte): byte for byte in _PRINTED} | {chr(256 + i): byte for i, byte in enumerate(_OTHERS)}  # by character
CHARACTERS = {byte: character for character, byte in BYTES.items()}
