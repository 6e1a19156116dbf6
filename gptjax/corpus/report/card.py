"""The data card in Markdown, from a manifest. No text of a document or name can break the layout of the page."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

from gptjax.config import flatten
from gptjax.corpus.config import default
from gptjax.corpus.forms import CHAT_PREFERENCES, PAIRS, PREFERENCES
from gptjax.corpus.manifest import change_text, places_text, shared_texts, supervised_text
from gptjax.corpus.plain import plain
from gptjax.corpus.report.funnel import left_documents
from gptjax.corpus.report.samples import Sample
from gptjax.display.formatting import counted, size_text
from gptjax.display.terminal import visible

MOST_ROWS = 20  # rows of languages and licences; the rest shares a row


def page(manifest: dict, samples: Sequence[Sample], pictures: dict[str, str]) -> str:
    """The text of card.md. pictures: what a picture shows → its file's name."""
    sections = (
        _summary(manifest),
        _sources(manifest),
        _funnel(manifest, pictures),
        _set_aside(manifest),
        _cleaning(manifest),
        _kinds(manifest, pictures),
        _own_stages(manifest),
        _duplicates(manifest, pictures),
        _passages(manifest),
        _contamination(manifest),
        _tokens(manifest),
        _samples(samples),
        _making(manifest),
    )
    return "\n\n".join(section for section in sections if section) + "\n"


def items_of(form: str) -> tuple[int, str]:
    """(the documents that an item consists of, what such items are called) in a prepared folder of this form."""
    of_form = {PAIRS: (2, "pairs"), PREFERENCES: (4, "preferences"), CHAT_PREFERENCES: (2, "preferences")}
    return of_form.get(form, (1, "documents"))


def _summary(manifest: dict) -> str:
    sides, what = items_of(manifest.get("form", ""))
    rows = [
        [split, of["documents"] // sides, size_text(of["bytes"]), of["tokens"], f"{of['bytes'] / of['tokens']:.2f}"]
        for split, of in manifest["splits"].items()
    ]
    return section(
        "# Data card",
        "Written by `python -m gptjax.prepare`. This table counts a document as often as the weight of its source "
        "repeats it; all other tables count it once.",
        table(["split", what, "size", "tokens", "bytes per token"], rows),
        f"Labels: {inline(', '.join(labels))}." if (labels := manifest.get("labels")) else "",
        *(f"{note[0].upper()}{note[1:]}." for note in shared_texts(manifest)),
    )


def _sources(manifest: dict) -> str:
    rows = [
        [
            *(one[name] for name in ("name", "kind", "path")),
            *(one["license"] or "each document's own, if any", one["language"] or "each document's own, if any"),
            *(f"{one['weight']:g}", one["found"]["files"], size_text(one["found"]["bytes"])),
        ]
        for one in manifest["sources"]
    ]
    return section(
        "## Sources", table(["source", "kind", "path", "licence", "language", "weight", "files", "size"], rows)
    )


def _funnel(manifest: dict, pictures: dict[str, str]) -> str:
    rows = []
    for one in manifest["sources"]:
        rows.append([one["name"], "read", one["extracted"]["documents"], size_text(one["extracted"]["bytes"])])
        rows += [
            ["", f"out: {reason}", counts["documents"], size_text(counts["bytes"])]
            for reason, counts in one["dropped"].items()
        ]
        left = sum(counts["bytes"] for counts in one["splits"].values())
        rows.append(["", "left", left_documents(one), size_text(left)])
        rows += [
            ["", f"left for {split}", counts["documents"], size_text(counts["bytes"])]
            for split, counts in one["splits"].items()
        ]
    shared = any(
        sum(counts["documents"] for counts in one["splits"].values()) > left_documents(one)
        for one in manifest["sources"]
    )
    skipped = [[reason, count, places_text(manifest, reason)] for reason, count in manifest["skipped"].items()]
    return section(
        "## From documents read to documents left",
        _picture("documents by stage", pictures.get("funnel")),
        table(["source", "", "documents", "size"], rows),
        "A document whose end is held out is counted in both splits, with a part of its size in each." * shared,
        table(["skipped by the readers, or noted", "times", "first at"], skipped),
    )


def _set_aside(manifest: dict) -> str:
    """Documents at which a process ended; those of a reader are among what it skipped, the others among what is out."""
    rows = [[one[name] for name in ("source", "stage", "document", "reason")] for one in manifest.get("set_aside", ())]
    return (
        section(
            "## Documents that ended the process which read them",
            "Each was tried again, and left out at the third time.",
            table(["source", "stage", "document", "reason"], rows),
        )
        if rows
        else ""
    )


def _cleaning(manifest: dict) -> str:
    """What repairing and masking changed, by kind."""
    rows = [
        [one["name"], what, kind, count]
        for one in manifest["sources"]
        for what, field in (("repaired documents", "repaired"), ("masked places", "masked"))
        for kind, count in ((one["cleaned"] or {}).get(field) or {}).items()
    ]
    return section("## Repaired and masked", table(["source", "", "kind", "count"], rows)) if rows else ""


def _kinds(manifest: dict, pictures: dict[str, str]) -> str:
    return section(
        "## Languages, licences and lengths of the documents that are left",
        _picture("lengths of documents, and shares of sources", pictures.get("kinds")),
        _by_kind("language", merged(manifest, "languages")),
        _by_kind("licence", merged(manifest, "licenses")),
    )


def _by_kind(title: str, counts: dict[str, list[int]]) -> str:
    ranked = sorted(counts.items(), key=lambda item: (-item[1][1], item[0]))
    rows = [[name or "not known", documents, size_text(size)] for name, (documents, size) in ranked[:MOST_ROWS]]
    if rest := [of for _, of in ranked[MOST_ROWS:]]:
        rows.append([f"{len(rest)} others", sum(of[0] for of in rest), size_text(sum(of[1] for of in rest))])
    return table([title, "documents", "size"], rows)


def _duplicates(manifest: dict, pictures: dict[str, str]) -> str:
    copies = manifest["copies"]
    if not copies:
        return ""
    settings = {name.split(".")[1]: of for name, of in manifest["options"].items() if name.startswith("duplicates.")}
    how = ", ".join(f"{name} {json.dumps(of)}" for name, of in sorted(settings.items()))
    counts = [
        [name.replace("_", " "), count]
        for name, count in copies.items()
        if isinstance(count, int) and name not in ("documents", "clusters")
    ]
    return section(
        "## Duplicates",
        f"Searched: {inline(how)}." if how else "",
        _picture("the probability that two documents are compared, and sizes of clusters", pictures.get("duplicates")),
        table(
            ["", f"of {counted(copies['documents'], 'document')}"],
            [["clusters of copies", copies["clusters"]], *counts],
        ),
        table(["documents in a cluster", "clusters"], list(copies.get("cluster_sizes", {}).items())),
    )


def _own_stages(manifest: dict) -> str:
    found = manifest.get("own_stages")
    if not found:
        return ""
    return section(
        "## Stages of its own",
        table(
            ["stage", "function", "version", "documents", "changed", "dropped"],
            [
                [name, *(one[each] for each in ("function", "version", "documents", "changed", "dropped"))]
                for name, one in found.items()
            ],
        ),
    )


def _passages(manifest: dict) -> str:
    found = manifest["passages"]
    if not found:
        return ""
    done = {"remove": "left out of their documents", "report": "only counted"}[found["action"]]
    return section(
        "## Repeated passages",
        f"Searched: every {found['kind']} of at least {found['words']} words. Later copies were {done}.",
        table(
            ["passages", "later copies", "documents with copies", "characters in copies"],
            [[found[name] for name in ("passages", "later_copies", "documents_with_copies", "characters")]],
        ),
    )


def _contamination(manifest: dict) -> str:
    found = manifest["contamination"]
    if not found:
        return ""
    done = {"remove": "left out", "report": "only reported"}[found["action"]]
    rows = [
        [
            *(name, of["items"], of["contaminated"], f"{100 * of['share']:.1f} %", of["left"], of["documents"]),
            of["too_short"],
        ]
        for name, of in found["sets"].items()
    ]
    examples = [
        f"{inline(name)}, item {inline(one['item'])}, {one['ngrams']} n-grams in document {one['document']}:\n\n"
        f"{_fenced(one['text'])}"
        for name, of in found["sets"].items()
        for one in of["examples"][:1]
    ]
    return section(
        "## Evaluation text in the corpus",
        f"Searched: runs of {found['ngram']} words that are also in an evaluation set; case and punctuation do not "
        f"matter. A shorter text of the set, of at least {found['least_words']} words, must match completely. "
        f"Documents with at least {found['least_hits']} different matches of one set were {done}.",
        table(
            ["set", "items", "items in the corpus", "share", "still there", "documents", "items too short to check"],
            rows,
        ),
        *examples,
    )


def _tokens(manifest: dict) -> str:
    made = manifest["tokenizer"]
    others = sorted({name for one in manifest["sources"] for name in one["compared"]})
    rows = [
        [
            *(one["name"], split, counts["tokens"], f"{counts['bytes_per_token']:.3f}"),
            *(f"{one['compared'].get(name, 0):.3f}" if split == "validation" else "" for name in others),
        ]
        for one in manifest["sources"]
        for split, counts in one["splits"].items()
    ]
    return section(
        "## Tokens",
        f"{made['kind']}, {made['vocab_size']:,} tokens, hash {made['hash']}; stored as {manifest['dtype']}.",
        f"{inline(change)}." if (change := change_text(manifest)) else "",
        f"{inline(note[0].upper() + note[1:])}." if (note := supervised_text(manifest)) else "",
        table(["source", "split", "tokens", "bytes per token", *(f"by {name}" for name in others)], rows),
    )


def _samples(samples: Sequence[Sample]) -> str:
    parts = []
    for title, is_in in (("Documents that stayed", True), ("Documents that did not", False)):
        chosen = [sample for sample in samples if (sample.reason == "") is is_in]
        if chosen:
            parts.append(f"## {title}")
        for one in chosen:
            why = f"{inline(one.reason)}: " if one.reason else ""
            rest = "" if one.is_whole else " (its beginning)"
            parts.append(
                f"{why}{inline(one.source)}, {inline(one.uri)}, document {one.id}{rest}\n\n{_fenced(one.text)}"
            )
    return "\n\n".join(parts)


def _making(manifest: dict) -> str:
    defaults = {name: plain(of) for name, of in flatten(default()).items()}
    options = [
        [name, json.dumps(of, ensure_ascii=False)]
        for name, of in sorted(manifest["options"].items())
        if name not in defaults or of != defaults[name]
    ]
    rest = len(manifest["options"]) - len(options)
    versions = ", ".join(f"{name} {number}" for name, number in manifest["versions"].items())
    entries = [manifest[name]["file"] for name in ("tokenizer", "source_tokenizer") if name in manifest]
    for split in manifest["splits"].values():
        entries += [
            *split["shards"],
            *(split[name] for name in ("offsets", "origins", "pairs", "labels", "supervised") if name in split),
        ]
    files = [[entry["name"], entry["size"], entry["hash"]] for entry in entries]
    stages = ", ".join(f"{name} (version {of['version']})" for name, of in manifest["stages"].items())
    return section(
        "## How it was made",
        f"Stages: {stages}. Versions: {versions}.",
        table(["option", "value"], options),
        f"The other {rest} options have their default values; manifest.json has all." if rest else "",
        table(["file", "bytes", "xxh3 hash"], files),
    )


def merged(manifest: dict, name: str) -> dict[str, list[int]]:
    """A histogram of all sources together: key → [documents, bytes]."""
    documents: Counter[str] = Counter()
    size: Counter[str] = Counter()
    for one in manifest["sources"]:
        for key, counts in one.get(name, {}).items():
            documents[key] += counts[0]
            size[key] += counts[1]
    return {key: [documents[key], size[key]] for key in documents}


# --- Markdown ---------------------------------------------------------------------------------------------------------


def section(title: str, *parts: str) -> str:
    return "\n\n".join([title, *(part for part in parts if part)])


def table(header: Sequence[str], rows: Sequence[Sequence[Any]], raw: bool = False) -> str:
    """A table, with numbers aligned to the right; '' without rows. raw: the cells are Markdown."""
    if not rows:
        return ""
    right = [all(isinstance(row[i], int) or _is_number(row[i]) for row in rows) for i in range(len(header))]
    lines = [_row(header), _row(("--:" if one else "---") for one in right)]
    return "\n".join(
        [
            *lines,
            *(
                _row(f"{cell:,}" if isinstance(cell, int) else str(cell) if raw else inline(cell) for cell in row)
                for row in rows
            ),
        ]
    )


def _row(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _is_number(cell: Any) -> bool:
    return bool(re.fullmatch(r"[\d,.]+( %| [KMGT]?B)?|", str(cell)))


def inline(text: str) -> str:
    """Escapes text for the inside of a line: no markup, no HTML, no border of a table."""
    text = visible(" ".join(str(text).split()))
    return re.sub(r"([\\`*_\[\]|~])", r"\\\1", text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;"))


def _fenced(text: str) -> str:
    """Text as a code block, with a fence that is longer than any in the text."""
    longest = max(map(len, re.findall("`+", text)), default=0)
    fence = "`" * max(3, longest + 1)
    return f"{fence}text\n{visible(text)}\n{fence}"


def _picture(says: str, name: str | None) -> str:
    return f"![{says}]({name})" if name else ""
