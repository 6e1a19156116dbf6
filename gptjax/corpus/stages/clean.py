"""Repairs and masks documents and detects their languages; also writes the figures that rules need.

No document is dropped here: select.py applies the thresholds, which change more often than texts.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from gptjax.corpus.cleaning import config as cleaning
from gptjax.corpus.cleaning.language import identify
from gptjax.corpus.cleaning.personal import KINDS, mask
from gptjax.corpus.cleaning.repair import repair
from gptjax.corpus.cleaning.statistics import COLUMNS, statistics
from gptjax.corpus.documents import DocumentWriter, is_blank
from gptjax.corpus.engine import Task
from gptjax.corpus.engine.journal import rows_set_aside
from gptjax.corpus.libraries import versions_of
from gptjax.corpus.stages.base import CorpusStage
from gptjax.corpus.stages.documents import batches, set_aside_in
from gptjax.corpus.stages.histogram import Histogram, reach

if TYPE_CHECKING:
    from gptjax.corpus.state import Corpus, DocumentShard

STATISTICS = pa.schema(
    {
        "id": pa.uint64(),
        "bytes": pa.int64(),  # of the cleaned text
        "language": pa.string(),
        "language_confidence": pa.float64(),  # 1 if the source states the language
        "repaired": pa.string(),  # names of repairs, separated by commas
        **{f"masked_{kind}": pa.uint32() for kind in KINDS},
        **{name: pa.float64() for name in COLUMNS},  # if no rule needs them, all except `characters` are NaN
    }
)


def clean(task: Task, folder: Path) -> dict:
    """Writes documents.parquet, and statistics.parquet (STATISTICS) with a row for each of its rows.

    inputs: documents; code: whether they are code, where only line ends are repaired and no language is detected;
    statistics: whether rules need them. options: mend, language (whether to do these), personal (kinds to mask).

    Reports documents and bytes after cleaning; the number of repaired documents, by repair; the number of masked
    places, by kind; languages and lengths (histogram.py).
    """
    repaired: Counter[str] = Counter()
    masked = Counter(dict.fromkeys(task.options["personal"], 0))
    languages, lengths = Histogram(), Histogram()
    out = rows_set_aside(task.journal)
    sidecar = pq.ParquetWriter(
        folder / "statistics.parquet", STATISTICS, compression="zstd", use_dictionary=["language", "repaired"]
    )
    with DocumentWriter(folder / "documents.parquet") as writer, sidecar:
        for first, batch in batches(task):
            skipped = set_aside_in(batch, first, out)
            texts, columns = _cleaned(batch, skipped, task.inputs["code"], **task.options)
            columns |= _figures(texts, task.inputs["statistics"]) | {"id": batch["id"]}
            if skipped.any():
                texts = [
                    original if skip else text
                    for text, original, skip in zip(texts, batch["text"].to_pylist(), skipped)
                ]
                columns |= {name: np.where(skipped, np.nan, columns[name]) for name in COLUMNS}
            text = pa.array(texts, pa.large_string())
            columns["bytes"] = pc.binary_length(text)
            sizes = columns["bytes"].to_numpy()
            batch = batch.set_column(batch.schema.get_field_index("text"), "text", text)
            language = pa.array(columns["language"], pa.string())
            batch = batch.set_column(batch.schema.get_field_index("language"), "language", language)
            writer.append_batch(batch, int(sizes.sum()))
            sidecar.write_table(pa.table([pa.array(columns[name]) for name in STATISTICS.names], schema=STATISTICS))
            repaired.update(name for names in columns["repaired"] for name in names.split(", ") if name)
            masked.update({kind: sum(columns[f"masked_{kind}"]) for kind in masked})
            languages.add(columns["language"], sizes.tolist())
            lengths.add(map(reach, sizes.tolist()), sizes.tolist())
    return {
        "documents": writer.documents,
        "bytes": writer.bytes,
        "repaired": dict(sorted(repaired.items())),
        "masked": dict(masked),
        "languages": languages.counts,
        "lengths": lengths.counts,
    }


def _cleaned(
    batch: pa.RecordBatch, out: np.ndarray, code: bool, mend: bool, language: bool, personal: list[str]
) -> tuple[list[str], dict[str, Any]]:
    """The cleaned texts, and the columns of STATISTICS that say what was changed.

    out: bool [documents], those that are not looked at; a verdict drops them.
    """
    texts, stated = batch["text"].to_pylist(), batch["language"].to_pylist()
    repaired, masked, identified = [], [], []
    for number, text in enumerate(texts):
        text = "" if out[number] else text
        text, names = repair(text, code) if mend else (text, ())
        text, counts = mask(text, personal) if personal else (text, {})
        texts[number] = text = "" if is_blank(text) else text  # a verdict will drop it
        repaired.append(", ".join(names))
        masked.append(counts)
        identified.append(identify(text) if language and not code and not stated[number] else (stated[number], 1.0))
    languages, confidences = zip(*identified)
    return texts, {
        "language": languages,
        "language_confidence": confidences,
        "repaired": repaired,
        **{f"masked_{kind}": [counts.get(kind, 0) for counts in masked] for kind in KINDS},
    }


def _figures(texts: list[str], wanted: bool) -> dict[str, np.ndarray]:
    if wanted:
        return statistics(texts)
    columns = {name: np.full(len(texts), np.nan) for name in COLUMNS}
    return columns | {"characters": np.array([len(text) for text in texts], np.float64)}


class Clean(CorpusStage):
    """Replaces the documents of sources with cleaning by cleaned ones.

    Texts are changed in an earlier stage than they are judged (select.py), so that a new threshold rewrites no text.
    """

    name, version, function = "clean", 2, staticmethod(clean)

    def is_wanted(self, corpus: Corpus) -> bool:
        return bool(cleaned_shards(corpus))

    def options(self, corpus: Corpus) -> dict[str, Any]:
        return cleaning.options(corpus.config.cleaning)

    def tasks(self, corpus: Corpus) -> tuple[Sequence[Any], Sequence[int]]:
        settings = corpus.config.cleaning

        def more(shard: DocumentShard) -> dict[str, Any]:
            made_by = versions_of(cleaning.libraries(settings, shard.source))
            return {**cleaning.treatment(shard.source), "libraries": made_by}

        return corpus.inputs(more, cleaned_shards(corpus))

    def finish(self, corpus: Corpus, results: list[dict]) -> None:
        for shard, result in zip(cleaned_shards(corpus), results):
            shard.documents, shard.cleaned = result["files"]["documents.parquet"], result["report"]
            shard.files["clean"] = result["files"]


def cleaned_shards(corpus: Corpus) -> list[DocumentShard]:
    """The shards of sources for which the config asks for any cleaning."""
    return [shard for shard in corpus.shards if cleaning.is_asked(corpus.config.cleaning, shard.source)]
