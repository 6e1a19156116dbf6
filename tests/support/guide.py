"""The Python of GUIDE.md, which tests run as it is written there."""

import re

from commands import REPOSITORY


def snippet(first_line: str) -> str:
    """The block of GUIDE.md whose first line begins like this."""
    text = (REPOSITORY / "GUIDE.md").read_text(encoding="utf-8")
    blocks = re.findall(r"^```python\n(.*?)^```", text, re.M | re.S)
    (found,) = [block for block in blocks if block.startswith(first_line)]
    return found
