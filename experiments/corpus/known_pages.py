"""Pages with known text: every content in every layout, for experiments/corpus/extraction.py.

The contents are what extractors stumble over (drawings in SVG, tables, code, scripts, writing from the right and
without spaces, nested lists, quotations); the layouts are those of real sites (elements that say what they are, nested
`div`s, tags that are never closed, a page with a long menu and sidebar).
"""

from __future__ import annotations

import html
from collections.abc import Iterator

_PLAIN = [
    "The ferry leaves the old harbour at seven in the morning and returns when the tide allows it, which in autumn "
    "may be late in the afternoon.",
    "Whoever misses it walks along the dike for two hours, past the lighthouse and the three farms that were rebuilt "
    "after the flood of 1953.",
    "In winter there is no service, and the island's forty inhabitants depend on what they stored in their cellars "
    "before the first ice.",
]


def _paragraphs(texts: list[str]) -> str:
    return "\n".join(f"<p>{html.escape(text)}</p>" for text in texts)


def _contents() -> Iterator[tuple[str, str, str]]:
    """(name, HTML, text)."""
    drawing = '<svg viewBox="0 0 9 9">' + '<path d="M0 0L9 9"/><g><circle r="1"></circle></g>' * 300 + "</svg>"
    yield "svg", f"{_paragraphs(_PLAIN[:1])}<figure>{drawing}</figure>{_paragraphs(_PLAIN[1:])}", " ".join(_PLAIN)
    rows = [
        ("Month", "Sailings", "Passengers"),
        ("May", "62", "4,180"),
        ("June", "60", "5,022"),
        ("July", "64", "7,391"),
    ]
    cells = "".join("<tr>" + "".join(f"<td>{cell}</td>" for cell in row) + "</tr>" for row in rows)
    yield "table", f"{_paragraphs(_PLAIN)}<table>{cells}</table>", " ".join([*_PLAIN, *(" ".join(row) for row in rows)])
    code = "def tide(hour):\n    if hour < 6:\n        return 'low'\n    return 'high'"
    yield "code", f"{_paragraphs(_PLAIN)}<pre><code>{html.escape(code)}</code></pre>", " ".join([*_PLAIN, code])
    nested = "<ul><li>Boots<ul><li>for the mud flats</li><li>for the dike</li></ul></li><li>Bread for today</li></ul>"
    told = "Boots for the mud flats for the dike Bread for today"
    yield "nested lists", f"{_paragraphs(_PLAIN)}{nested}", " ".join([*_PLAIN, told])
    arabic = [
        "تغادر العبارة الميناء القديم في الساعة السابعة صباحا وتعود عندما يسمح المد بذلك، وقد يتأخر ذلك في الخريف.",
        "ومن فاتته يمشي على طول السد ساعتين، مارا بالمنارة والمزارع الثلاث التي أعيد بناؤها بعد الفيضان الكبير.",
        "وفي الشتاء لا توجد خدمة، ويعتمد سكان الجزيرة الأربعون على ما خزنوه في أقبيتهم قبل أول جليد.",
    ]
    yield "right to left", f'<div dir="rtl" lang="ar">{_paragraphs(arabic)}</div>', " ".join(arabic)
    japanese = [
        "渡し船は朝七時に古い港を出て、潮の具合が良くなったときに戻るので、秋には午後遅くになることもある。",
        "乗り遅れた人は堤防に沿って二時間歩き、灯台と、洪水の後に建て直された三軒の農家の前を通り過ぎる。",
        "冬には船がなく、島の四十人の住民は、最初の氷が張る前に地下室に蓄えたもので暮らしている。",
    ]
    yield "japanese", _paragraphs(japanese), " ".join(japanese)
    quote = "We never counted the days, only the tides."
    quoted = f"{_paragraphs(_PLAIN[:2])}<blockquote><p>{quote}</p></blockquote>{_paragraphs(_PLAIN[2:])}"
    yield "quotation", quoted, " ".join([*_PLAIN, quote])
    script = "<script>if (a <b && c> d) document.write('<div>' + '<p>');</script>" * 90
    yield "scripts", f"{_paragraphs(_PLAIN[:2])}{script}{_paragraphs(_PLAIN[2:])}", " ".join(_PLAIN)


_MENU = "".join(
    f'<li><a href="/{name}">{name}</a></li>' for name in ("News", "Sport", "Weather", "Jobs", "Shop", "Contact")
)
_FOOTER = '<p>© 2024 Island Post. All rights reserved. <a href="/privacy">Privacy</a> <a href="/terms">Terms</a></p>'
_SIDEBAR = "<ul>" + "".join(f'<li><a href="/{i}">Read more: story number {i}</a></li>' for i in range(25)) + "</ul>"
_HEAD = "<!doctype html><html><head><meta charset=utf-8><title>The ferry</title></head><body>"
_LAYOUTS = {
    "semantic": _HEAD + f"<header><nav><ul>{_MENU}</ul></nav></header><main><article>"
    f"<h1>The ferry</h1>CONTENT</article></main><footer>{_FOOTER}</footer></body></html>",
    "divs": _HEAD + f'<div id="page"><div class="menu"><ul>{_MENU}</ul></div>' + '<div class="wrap">' * 12
    + '<div class="post-content"><h1>The ferry</h1>CONTENT</div>' + "</div>" * 12
    + f'<div class="footer">{_FOOTER}</div></div></body></html>',
    "unclosed": _HEAD + f'<div class=menu><ul>{_MENU}</ul></div><div class="article-body"><h1>The ferry</h1><font><b>'
    f"</b>CONTENT</div><div class=footer>{_FOOTER}",
    "sidebar": _HEAD + f'<nav><ul>{_MENU}</ul></nav><aside class="sidebar">{_SIDEBAR}</aside><div class="content">'
    "<article>"
    f'<h1>The ferry</h1>CONTENT</article></div><aside class="related">{_SIDEBAR}</aside><footer>{_FOOTER}</footer>',
}  # fmt: skip


def known_pages() -> dict[str, tuple[str, str]]:
    """name → (HTML, main text)."""
    return {
        f"{name}, {layout}": (page.replace("CONTENT", content), f"The ferry {text}")
        for name, content, text in _contents()
        for layout, page in _LAYOUTS.items()
    }
