"""What is left of a shard, by split, and what is not, by reason; the characters that occur, where they are asked for.

It comes before hours of training a tokenizer and encoding, so that a corpus that cannot be split is refused by then.
"""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

from gptjax.corpus.engine import Task
from gptjax.corpus.stages.histogram import Histogram, reach
from gptjax.corpus.stages.splits import CUT, split_texts
from gptjax.corpus.stages.verdicts import remaining


def survey(task: Task, folder: Path) -> dict:
    """inputs: documents, verdicts, most_held_out (bytes of a document). options: split (fraction, by, seed), characters
    (whether to count them).

    Reports documents and bytes that are left, the same by split (a document whose tail is held out stands in both, with
    a part of its bytes in each), languages, licenses and lengths of the documents
    (histogram.py), and dropped: reason → [documents, bytes].
    """
    count = 0
    dropped: dict[str, list[int]] = {}
    documents: Counter[str] = Counter()
    size: Counter[str] = Counter()
    characters: Counter[str] = Counter()
    languages, licenses, lengths = Histogram(), Histogram(), Histogram()
    for some in remaining(task):
        count += len(some.texts)
        sizes = [len(text.encode()) for text in some.texts]
        languages.add(some.languages, sizes)
        licenses.add(some.licenses, sizes)
        lengths.add(map(reach, sizes), sizes)
        cut = sum(sizes)
        most = task.inputs["most_held_out"]
        for _, split, text in split_texts(some.texts, some.split_keys, **task.options["split"], most_bytes=most):
            length = len(text.encode())
            documents[split] += 1
            size[split] += length
            cut -= length
            if split == "train" and task.options["characters"]:
                characters.update(text)
        for reason, (number, bytes_) in {**some.dropped, **({CUT: (0, cut)} if cut else {})}.items():
            before = dropped.get(reason, [0, 0])
            dropped[reason] = [before[0] + number, before[1] + bytes_]
    if task.options["characters"]:
        (folder / "characters.json").write_text(json.dumps(dict(sorted(characters.items()))))
    return {
        "documents": count,
        "bytes": size.total(),
        "splits": {split: {"documents": documents[split], "bytes": size[split]} for split in sorted(documents)},
        "languages": languages.counts,
        "licenses": licenses.counts,
        "lengths": lengths.counts,
        "dropped": dict(sorted(dropped.items())),
    }
