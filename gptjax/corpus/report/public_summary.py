"""A draft of the public summary of training content that the EU asks of providers of general-purpose AI models.

It has the sections and fields of the European Commission's template (published on 24 July 2025, adopted as C(2025) 8311
for article 53(1)(d) of Regulation (EU) 2024/1689), in their order, filled as far as the manifest of a prepared folder
knows. What only the provider can say is marked; nothing is guessed. The fields were compared with summaries that are
published in the template's form.
"""

from __future__ import annotations

from typing import Any

from gptjax.corpus.forms import CHAT_PREFERENCES, CONVERSATIONS, LABELLED, PAIRS, PREFERENCES
from gptjax.corpus.report.card import inline, merged, section, table
from gptjax.corpus.report.funnel import left_documents
from gptjax.display.formatting import size_text

ASKED = "**to be stated by the provider**"
# The template's classes of size for text.
_SIZES = ((10**9, "less than 1 billion tokens"), (10**13, "1 billion to 10 trillion tokens"))
_CRAWLED = ("web",)  # kinds whose documents are pages
_CONTENT = {
    "web": "web pages",
    "code": "source code",
    "books": "books",
    "papers": "scientific papers",
    "wikipedia": "encyclopedia articles",
    "text": "plain text",
    "tables": "texts from tables",
}
_FORMS = {
    PAIRS: "pairs of texts",
    LABELLED: "labelled texts",
    CONVERSATIONS: "conversations",
    PREFERENCES: "preferences between texts",
    CHAT_PREFERENCES: "preferences between answers in conversations",
}


def page(manifest: dict) -> str:
    """The text of public_summary.md."""
    parts = (
        section(
            "# Public summary of training content",
            "A draft by `python -m gptjax.prepare`, in the form of the European Commission's template. Its figures are "
            f"those of this prepared folder; what it cannot know is marked: {ASKED}. A model trained on several "
            "folders needs one summary of all, for all stages of its training.",
            _fields(("Version of the summary", ASKED), ("Last update", ASKED)),
        ),
        _general(manifest),
        _sources(manifest),
        _processing(manifest),
    )
    return "\n\n".join(parts) + "\n"


def _fields(*rows: tuple[str, str]) -> str:
    return table(["", ""], [list(row) for row in rows], raw=True)


def _general(manifest: dict) -> str:
    tokens = sum(of["tokens"] for of in manifest["splits"].values())
    size = sum(of["bytes"] for of in manifest["splits"].values())
    bracket = next((name for most, name in _SIZES if tokens < most), "more than 10 trillion tokens")
    kinds = sorted(
        {_FORMS.get(manifest.get("form", ""), _CONTENT.get(one["kind"], one["kind"])) for one in manifest["sources"]}
    )
    languages = sorted(merged(manifest, "languages").items(), key=lambda item: (-item[1][1], item[0]))
    return section(
        "## 1. General information",
        "### 1.1 Provider identification",
        _fields(
            ("Provider name and contact details", ASKED),
            ("Authorised representative name and contact details", ASKED),
        ),
        "### 1.2 Model identification",
        _fields(
            ("Versioned model names", ASKED),
            ("Model dependencies: models that it was made from", ASKED),
            ("Date of placement of the model on the Union market", ASKED),
        ),
        "### 1.3 Modalities, overall training data size and other characteristics",
        "After the data was processed and before training:",
        table(
            ["modality", "training data size", "types of content"],
            [["text", f"{bracket} ({tokens:,} tokens, {size_text(size)} of text)", ", ".join(kinds)]],
        ),
        _fields(
            ("Latest date of data acquisition or collection for model training", ASKED),
            ("Whether the model is trained on new data after this date", ASKED),
            (
                "Linguistic characteristics of the overall training data",
                f"{len([name for name, _ in languages if name])} identified languages",
            ),
            ("Other relevant characteristics, such as national or demographic ones", ASKED),
        ),
        table(
            ["language", "documents", "size"],
            [[name or "not identified", count, size_text(of)] for name, (count, of) in languages[:20]],
        ),
    )


def _sources(manifest: dict) -> str:
    def rows(crawled: bool) -> list[list[Any]]:
        return [
            [
                *(one["name"], one["kind"], one["path"], _licence(one), left_documents(one)),
                size_text(sum(of["bytes"] for of in one["splits"].values())),
            ]
            for one in manifest["sources"]
            if (one["kind"] in _CRAWLED) is crawled
        ]

    header = ["source", "kind", "path", "licence", "documents", "size"]
    return section(
        "## 2. List of data sources",
        "### 2.1 Publicly available datasets",
        "The manifest does not know who may obtain a source. Those that are private belong under 2.2, those that a "
        "model wrote under 2.5.",
        table(header, rows(False)) or "None in this folder.",
        _fields(
            ("Publicly available datasets were used", ASKED),
            ("Modalities of their content", ASKED),
            ("List of large publicly available datasets, with their addresses", ASKED),
            ("General description of other publicly available datasets", ASKED),
        ),
        "### 2.2 Private non-publicly available datasets obtained from third parties",
        "#### 2.2.1 Datasets commercially licensed by rightsholders or their representatives",
        _fields(
            ("Commercial licensing agreements with rightsholders or their representatives", ASKED),
            ("Modalities of their content", ASKED),
        ),
        "#### 2.2.2 Private datasets obtained from other third parties",
        _fields(
            ("Private datasets were obtained that are not licensed as under 2.2.1", ASKED),
            ("Modalities of their content", ASKED),
            ("List of those that are publicly known", ASKED),
            ("General description of those that are not publicly known", ASKED),
        ),
        "### 2.3 Data crawled and scraped from online sources",
        "Archives that others made and published, such as Common Crawl's, belong under 2.1." * bool(rows(True)),
        table(header, rows(True)) or "None in this folder.",
        _fields(
            ("Crawlers were used by the provider or on its behalf", ASKED),
            ("Crawler names or identifiers", ASKED),
            ("Purposes of the crawlers", ASKED),
            ("General description of crawler behaviour, such as towards robots.txt and paywalls", ASKED),
            ("Period of data collection", ASKED),
            ("Comprehensive description of the type of content and online sources crawled", ASKED),
            ("Type of modality covered", "text" if rows(True) else ASKED),
            (
                "Summary of the most relevant domain names crawled: the top 10 % by size of the content, or, for small "
                "and medium-sized enterprises, the top 5 % or 1,000",
                "below" if manifest.get("domains") else ASKED,
            ),
        ),
        *_domains(manifest),
        "### 2.4 User data",
        "The manifest does not know whether any source holds data of users.",
        _fields(
            ("Data from user interactions with the AI model was used", ASKED),
            ("Data from user interactions with the provider's other services or products was used", ASKED),
            ("General description of these services or products", ASKED),
            ("Type of modality covered", ASKED),
        ),
        "### 2.5 Synthetic data",
        "The manifest does not know whether any source was generated by a model.",
        _fields(
            ("Synthetic data was created by the provider or on its behalf", ASKED),
            ("Modality of the synthetic data", ASKED),
            ("General-purpose AI models on the market that generated it", ASKED),
            ("Other AI models, including the provider's own, that generated it", ASKED),
        ),
        "### 2.6 Other sources of data",
        _fields(
            ("Data sources other than those of 2.1 to 2.5 were used", ASKED),
            ("Narrative description of these sources and their data", ASKED),
        ),
    )


def _domains(manifest: dict) -> list[str]:
    """The largest domains of all documents that have an address, whatever their source."""
    found = manifest.get("domains")
    if not found:
        return []
    return [
        f"Documents with an address are from {found['domains']:,} domains; {found['file']['name']} lists the largest "
        f"tenth of these by the size of their text, {found['listed']:,}. The first of them:",
        table(
            ["domain", "documents", "size"],
            [[name, documents, size_text(size)] for name, (documents, size) in found["largest"].items()],
        ),
    ]


def _licence(one: dict) -> str:
    if one["license"]:
        return one["license"]
    found = sorted(((size, name) for name, (_, size) in one["licenses"].items() if name), reverse=True)
    return ", ".join(name for _, name in found[:5]) + ", and others" * (len(found) > 5) or "not known"


def _processing(manifest: dict) -> str:
    code = [one for one in manifest["sources"] if one["kind"] == "code"]
    kept = sorted({name for one in code for name in one["options"].get("licenses", ())})
    masked: dict[str, int] = {}
    reasons: dict[str, int] = {}
    for one in manifest["sources"]:
        for kind, count in ((one["cleaned"] or {}).get("masked") or {}).items():
            masked[kind] = masked.get(kind, 0) + count
        for reason, counts in one["dropped"].items():
            reasons[reason] = reasons.get(reason, 0) + counts["documents"]
    dropped = sorted(reasons.items(), key=lambda item: (-item[1], item[0]))
    chosen = f"Of source code, only files under these licences were kept: {inline(', '.join(kept))}." if kept else ""
    return section(
        "## 3. Data processing aspects",
        "### 3.1 Respect of reservation of rights from text and data mining exception or limitation",
        _fields(
            ("Signatory to the Code of Practice for general-purpose AI models", ASKED),
            (
                "Measures before training to respect reservations of rights, before and during data collection, and "
                "the opt-out protocols that were honoured by the provider or by third parties",
                ASKED,
            ),
        ),
        chosen,
        "### 3.2 Removal of illegal content",
        _fields(("General description of measures taken", ASKED)),
        table(["personal data masked", "places"], sorted(masked.items())) or "No personal data was masked.",
        "### 3.3 Other information",
        table(["documents dropped because of", "documents"], [list(row) for row in dropped])
        or "No document was dropped.",
        "Copies were searched for." if manifest["copies"] else "",
        "The data was searched for the text of evaluation sets." if manifest["contamination"] else "",
    )
