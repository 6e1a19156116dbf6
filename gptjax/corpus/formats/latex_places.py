"""Where the parts of a LaTeX source end: groups, options, environments, maths."""

from __future__ import annotations

import re

from gptjax.corpus.formats.latex_project import closing_braces

OPTION = re.compile(r"\s*\[[^\[\]]{0,500}\]")
_INLINE_MARK = re.compile(r"\\.|[${}]|\n\s*\n", re.DOTALL)


class Places:
    """The places of one source.

    Attributes:
      closing: the place of a group's opening brace → that of its closing brace.
    """

    def __init__(self, source: str):
        self._source = source
        self.closing = closing_braces(source)
        self._never: set[str] = set()  # ends that do not occur any more

    def end_of(self, end: str, place: int) -> tuple[int, int] | None:
        """The next `end` from a place on: (where it begins, the place after it). Places must not decrease."""
        at = -1 if end in self._never else self._source.find(end, place)
        if at < 0:
            self._never.add(end)
            return None
        return at, at + len(end)

    def after_inline_maths(self, place: int) -> int:
        """The place after the dollar that ends maths; a group may contain maths of its own. 0 if there is none."""
        end = self._source.find("$", place)
        plain = self._source[place : max(end, 0)]
        if plain and "\n" not in plain and plain[-1] != "\\" and plain.count("{") == plain.count("}"):
            return end + 1
        while found := _INLINE_MARK.search(self._source, place):
            if found[0] == "$":
                return found.end()
            if found[0] == "{":
                place = self.closing.get(found.start(), found.start()) + 1
            elif found[0][0] == "\\":
                place = found.end()
            else:
                break
        return 0

    def after_option(self, place: int) -> int:
        found = OPTION.match(self._source, place)
        return found.end() if found else place

    def after_group(self, place: int) -> int:
        at = place + (self._source[place : place + 1] in (" ", "\n"))
        return self.closing[at] + 1 if at in self.closing else place

    def after_arguments(self, place: int) -> int:
        """The place after all brackets and groups that follow directly."""
        while True:
            after = self.after_option(place) if self._source[place : place + 1] == "[" else self.after_group(place)
            if after == place:
                return place
            place = after
