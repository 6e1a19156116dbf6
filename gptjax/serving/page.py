"""The chat page: one HTML file that asks nothing of any other host, and the policy that holds it to this."""

from __future__ import annotations

import base64
import hashlib
import re
from pathlib import Path

PAGE = Path(__file__).with_name("page.html")
HEADERS = {
    "Cache-Control": "no-cache",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
}


def page_and_policy() -> tuple[str, str]:
    """The page, and a Content-Security-Policy that allows exactly its own script and style, and requests to its own
    server: a text of a model that a mistake in the page took for HTML could still neither run nor load anything."""
    html = PAGE.read_text(encoding="utf-8")
    allowed = {tag: " ".join(map(_source, re.findall(rf"<{tag}>(.*?)</{tag}>", html, re.S))) for tag in _TAGS}
    policy = [
        "default-src 'none'",
        f"script-src {allowed['script']}",
        f"style-src {allowed['style']}",
        "connect-src 'self'",
        "img-src data:",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
    ]
    return html, "; ".join(policy)


_TAGS = ("script", "style")


def _source(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"
