"""How many sentences of a MediaWiki dump keep a hole where a template stood?

    python experiments/corpus/templates.py DUMP.xml.bz2

A hole is a template inside a sentence that leaves no text, although it is neither a note nor a source, an icon, a sound
or a place on a map (`wikitext_templates.is_silent`). "By list": if only templates that are known by name had text.
"""

from __future__ import annotations

import sys
from collections import Counter

from gptjax.corpus.formats import wikitext_templates
from gptjax.corpus.sources import wikipedia


def main(path: str) -> None:
    counts, holes = Counter(), Counter()
    template = wikitext_templates.expand

    def counted(content: str, inside: bool) -> str:
        text = template(content, inside)
        name = content.partition("|")[0].partition(":")[0].strip().lower()
        if inside and not wikitext_templates.is_silent(name):
            counts["templates inside sentences"] += 1
            known = name.replace(" ", "_") in wikitext_templates._TEMPLATES or name.startswith("lang-")
            counts["holes, by list"] += not (known and text)
            counts["holes, by rule"] += not text
            holes[name] += not text
        return text

    wikitext_templates.expand = counted
    options = dict(wikipedia.OPTIONS)
    for piece in wikipedia.find(path, options):
        counts["articles"] += sum(1 for _ in wikipedia.read(piece, options, Counter()))
    for name, count in counts.items():
        print(f"| {name} | {count:,} |")
    print("holes left:", ", ".join(f"{name} {count}" for name, count in holes.most_common(25) if count))


if __name__ == "__main__":
    main(sys.argv[1])
