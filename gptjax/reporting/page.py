"""A document as one HTML page without any outside resource, for screens, light or dark, and for paper.

Every string of the document is escaped here, and the page forbids scripts and outside resources to itself (its content
security policy), so that nothing in a run's name, metrics or samples can become markup. The only markup that a document
brings is that of its figures, which curves.py draws and escapes.
"""

from __future__ import annotations

import html
import re
from collections.abc import Sequence
from pathlib import Path

from gptjax.reporting.document import (
    Block,
    Bullets,
    Code,
    Document,
    Facts,
    Figure,
    Folded,
    Note,
    Paragraph,
    Sample,
    Table,
    Tiles,
    writable,
)

STYLE = Path(__file__).with_name("page.css")
POLICY = "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"


def page(document: Document) -> str:
    """The whole page."""
    sections = document.nonempty
    links = "".join(f'<li><a href="#{each.anchor}">{_text(each.title)}</a></li>' for each in sections)
    body = [
        "<header>",
        f'<p class="eyebrow">{_text(document.kind)}</p>',
        f"<h1>{_text(document.title)}</h1>",
        f'<p class="subtitle">{_text(document.subtitle)}</p>' if document.subtitle else "",
        _blocks(document.lead),
        "</header>",
        f'<nav aria-label="Contents"><ol>{links}</ol></nav>',
        "<main>",
    ]
    for section in sections:
        heading = f'<a href="#{section.anchor}">{_text(section.title)}</a>'
        body.append(f'<section><h2 id="{section.anchor}">{heading}</h2>\n{_blocks(section.blocks)}</section>')
    body += ["</main>", f"<footer>{_inline(document.made)}</footer>"]
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{POLICY}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="referrer" content="no-referrer">
<title>{_text(document.title)}</title>
<style>
{STYLE.read_text(encoding="utf-8")}</style>
</head>
<body>
<div class="sheet">
{chr(10).join(filter(None, body))}
</div>
</body>
</html>
"""


def _blocks(blocks: Sequence[Block]) -> str:
    return "".join(f"{_block(block)}\n" for block in blocks)


def _block(block: Block) -> str:
    match block:
        case Paragraph(text):
            return f"<p>{_inline(text)}</p>"
        case Note(text):
            return f'<p class="note">{_inline(text)}</p>'
        case Bullets(items):
            return f"<ul>{''.join(f'<li>{_inline(item)}</li>' for item in items)}</ul>"
        case Facts(rows):
            return f'<div class="wide"><table class="facts"><tbody>{"".join(map(_fact, rows))}</tbody></table></div>'
        case Tiles(items):
            return f'<dl class="tiles">{"".join(map(_tile, items))}</dl>'
        case Table():
            return _table(block)
        case Figure(svg, alt, caption):
            title = f"<figcaption>{_inline(caption)}</figcaption>" if caption else ""
            named = svg.replace("<svg ", f'<svg role="img" aria-label="{_text(alt)}" ', 1)
            return f"<figure>{title}{named}</figure>"
        case Code(text):
            return f"<pre><code>{_text(text)}</code></pre>"
        case Sample(prompt, text, how):
            given = f'<span class="prompt">{_text(prompt)}</span>' if prompt else ""
            return f'<div class="sample"><p class="how">{_inline(how)}</p><pre>{given}{_text(text)}</pre></div>'
        case Folded(title, blocks, printed):
            opened = " open" if printed else ""
            return f"<details{opened}><summary>{_text(title)}</summary>\n{_blocks(blocks)}</details>"
    raise TypeError(f"no HTML for {type(block).__name__}")


def _fact(row: tuple[str, str, str]) -> str:
    name, value, remark = row
    said = f' <span class="remark">{_inline(remark)}</span>' if remark else ""
    return f"<tr><td>{_inline(name)}</td><td>{_inline(value)}{said}</td></tr>"


def _tile(item: tuple[str, str, str]) -> str:
    name, value, remark = item
    return (
        f'<div class="tile"><dt>{_inline(name)}</dt><dd class="value">{_inline(value)}</dd>'
        f'<dd class="remark">{_inline(remark)}</dd></div>'
    )


def _table(table: Table) -> str:
    def cell(kind: str, number: int, text: str) -> str:
        right = ' class="right"' if number in table.right else ""
        return f"<{kind}{right}>{_inline(text)}</{kind}>"

    caption = f"<caption>{_inline(table.caption)}</caption>" if table.caption else ""
    head = "".join(cell("th", number, text) for number, text in enumerate(table.head))
    rows = "".join(f"<tr>{''.join(cell('td', n, text) for n, text in enumerate(row))}</tr>" for row in table.rows)
    return (
        f'<div class="wide"><table>{caption}<thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table></div>'
        if table.rows
        else ""
    )


def _text(text: str) -> str:
    return html.escape(writable(text), quote=True)


def _inline(text: str) -> str:
    """Escaped text, in which `code` is set as code."""
    return re.sub(r"`([^`]+)`", r"<code>\1</code>", _text(text))
