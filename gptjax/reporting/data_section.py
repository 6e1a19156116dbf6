"""The data card of a report: sources, the way of the documents into the corpus, licences, contamination, tokens."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from gptjax.corpus.manifest import change_text, shared_texts, supervised_text
from gptjax.corpus.report.card import items_of, merged
from gptjax.corpus.report.funnel import left_documents
from gptjax.display.formatting import count_text, size_text
from gptjax.reporting.corpus import Corpus, source_name
from gptjax.reporting.document import Block, Folded, Note, Paragraph, plain
from gptjax.reporting.facts import RunFacts
from gptjax.reporting.tables import table

MOST_ROWS = 12
OF_EACH = "of each document"


def data_blocks(facts: RunFacts) -> tuple[Block, ...]:
    if not facts.corpora:
        return (Note("The run's config names no prepared folder, so nothing is known about its data."),)
    blocks: list[Block] = []
    for corpus in facts.corpora:
        share = f", {corpus.weight:g} of the windows" if corpus.weight is not None else ""
        if len(facts.corpora) > 1:
            blocks.append(Paragraph(f"Prepared folder `{plain(corpus.name)}`{share}:"))
        if corpus.problem:
            blocks.append(Note(plain(corpus.problem)))
        try:
            blocks += _of_manifest(corpus.manifest) if corpus.manifest else _of_record(corpus)
        except (KeyError, TypeError, ValueError, AttributeError, ArithmeticError):
            blocks.append(Note(f"The manifest of {plain(corpus.name)} is of another version and was left out."))
    return tuple(blocks)


def _of_record(corpus: Corpus) -> list[Block]:
    """What a checkpoint says of a folder that is gone."""
    if corpus.recorded is None:
        return [Paragraph("No checkpoint says what it held.")]
    files = [file for file in corpus.recorded.get("files", []) if isinstance(file, dict)]
    rows = [[file.get("name", ""), file.get("size", ""), file.get("hash", "")] for file in files]
    tokens = corpus.recorded.get("tokens")
    text = f"A checkpoint recorded {count_text(tokens)} training tokens in these files:" if tokens else "Its files:"
    return [Paragraph(text), table(("file", "bytes", "xxh3 hash"), rows)]


def _of_manifest(manifest: Mapping[str, Any]) -> list[Block]:
    whole: dict = {"skipped_at": {}, "skipped": {}, **manifest}
    blocks: list[Block] = [_splits(whole)]
    blocks += [Paragraph(f"{plain(note[0].upper() + note[1:])}.") for note in _notes(whole)]
    sources = manifest.get("sources", [])
    if sources:
        blocks.append(_sources(sources))
        blocks.append(_funnel(sources))
    for title, name in (("language", "languages"), ("licence", "licenses")):
        found = merged({"sources": sources}, name)
        if any(found):
            blocks.append(_by_kind(title, found))
        elif sources and name == "licenses":
            blocks.append(Note("No source and no document states a licence: find out before you publish the model."))
    blocks += _copies(manifest) + _contamination(manifest)
    return [*blocks, _files(manifest)]


def _splits(manifest: Mapping[str, Any]) -> Block:
    sides, what = items_of(manifest.get("form", ""))
    rows = [
        [
            split,
            of["documents"] // sides,
            size_text(of.get("bytes", 0)),
            of["tokens"],
            f"{of.get('bytes', 0) / of['tokens']:.2f}",
        ]
        for split, of in manifest["splits"].items()
        if of["tokens"]
    ]
    return table(("split", what, "size", "tokens", "bytes per token"), rows)


def _notes(manifest: dict) -> list[str]:
    return [*shared_texts(manifest), *filter(None, (change_text(manifest), supervised_text(manifest)))]


def _sources(sources: list[Mapping[str, Any]]) -> Block:
    rows = [
        [
            *(
                source_name(one),
                one["kind"],
                _stated(one, "license", "licenses"),
                _stated(one, "language", "languages"),
            ),
            *(f"{one['weight']:g}", one["found"]["files"], size_text(one["found"]["bytes"])),
        ]
        for one in sources
    ]
    return table(("source", "kind", "licence", "language", "weight", "files", "size"), rows, "Sources")


def _stated(source: Mapping[str, Any], field: str, of_documents: str) -> str:
    """What the source states of all its documents, or whether they state it themselves."""
    return source[field] or (OF_EACH if any(source.get(of_documents, {})) else "not stated")


def _funnel(sources: list[Mapping[str, Any]]) -> Block:
    rows: list[list[Any]] = []
    for one in sources:
        rows.append([source_name(one), "read", one["extracted"]["documents"], size_text(one["extracted"]["bytes"])])
        rows += [
            ["", f"left out: {reason}", counts["documents"], size_text(counts["bytes"])]
            for reason, counts in one["dropped"].items()
        ]
        size = sum(counts["bytes"] for counts in one["splits"].values())
        rows.append(["", "in the corpus", left_documents(dict(one)), size_text(size)])
    return table(("source", "", "documents", "size"), rows, "From documents read to documents in the corpus")


def _by_kind(title: str, counts: dict[str, list[int]]) -> Block:
    ranked = sorted(counts.items(), key=lambda item: (-item[1][1], item[0]))
    rows = [[name or "not known", documents, size_text(size)] for name, (documents, size) in ranked[:MOST_ROWS]]
    if rest := [of for _, of in ranked[MOST_ROWS:]]:
        rows.append([f"{len(rest)} others", sum(of[0] for of in rest), size_text(sum(of[1] for of in rest))])
    return table((title, "documents", "size"), rows)


def _copies(manifest: Mapping[str, Any]) -> list[Block]:
    found = manifest.get("copies")
    if not found:
        return [Paragraph("Duplicates were not searched for.")] if manifest.get("sources") else []
    counts = [(name, count) for name, count in found.items() if isinstance(count, int)]
    return [table(("duplicates", "number"), [[name.replace("_", " "), count] for name, count in counts])]


def _contamination(manifest: Mapping[str, Any]) -> list[Block]:
    found = manifest.get("contamination")
    if not found:
        return [Paragraph("The corpus was not searched for evaluation questions when it was prepared.")]
    done = {"remove": "left out of the corpus", "report": "only reported"}.get(found["action"], found["action"])
    rows = [
        [name, of["items"], of["contaminated"], f"{100 * of['share']:.1f} %", of["left"]]
        for name, of in found["sets"].items()
    ]
    head = ("evaluation set", "items", "items in the corpus", "share", "still there")
    text = f"Documents that hold runs of {found['ngram']} words of an evaluation set were {done}."
    return [table(head, rows, "Evaluation questions in the corpus"), Paragraph(text)]


def _files(manifest: Mapping[str, Any]) -> Block:
    rows = [
        [entry["name"], entry["size"], entry["hash"]]
        for of in manifest["splits"].values()
        for entry in [*of["shards"], of["offsets"]]
    ]
    stages = ", ".join(f"{name} (version {of['version']})" for name, of in manifest.get("stages", {}).items())
    versions = ", ".join(f"{name} {number}" for name, number in manifest.get("versions", {}).items())
    blocks: list[Block] = [table(("file", "bytes", "xxh3 hash"), rows)]
    if stages:
        blocks.append(Paragraph(f"Stages: {plain(stages)}."))
    blocks.append(Paragraph(f"Versions: {plain(versions)}. Hash of the manifest: {plain(manifest.get('hash', ''))}."))
    return Folded("Files of the prepared folder, with hashes and versions", tuple(blocks))
