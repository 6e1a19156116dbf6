"""Prepared folders with known tokens, written as python -m gptjax.prepare writes them."""

import numpy as np

from gptjax.corpus.manifest import make_manifest, write_manifest
from gptjax.corpus.tokens.shards import ShardWriter
from gptjax.data.prepared import labels_name
from gptjax.files import file_entry
from gptjax.tokenizer import ByteTokenizer


def write_prepared(
    folder,
    *,
    train,
    validation=(),
    shard_tokens=1000,
    tokenizer=None,
    bos=False,
    form="text",
    source_tokenizer=None,
    labels=None,
):
    """A prepared folder with these documents, each a list of token ids that includes EOS and, with `bos`, BOS.

    form: with 'pairs', the documents are source, target, source, target …
    labels: the names of the labels; document i then has the label i modulo their number, and the form is 'labelled'.
    """
    folder.mkdir()
    tokenizer = tokenizer or ByteTokenizer()
    splits = {}
    for split, documents in (("train", train), ("validation", validation)):
        if len(documents):
            writer = ShardWriter(folder, split, tokenizer.vocab_size, shard_tokens)
            writer.append([np.asarray(ids) for ids in documents])
            splits[split] = {**writer.close(), "bytes": 0, "unknown_tokens": 0}
            if labels:
                np.save(folder / labels_name(split), np.arange(len(documents), dtype=np.int32) % len(labels))
                splits[split]["labels"] = file_entry(folder / labels_name(split))
    tokenizer.save(folder)
    if source_tokenizer is not None:
        source_tokenizer.save(folder / "..").rename(folder / f"source_{source_tokenizer.file_name}")
    of_both = {"tokenizer": tokenizer, "source_tokenizer": source_tokenizer}
    form, more = ("labelled", {"labels": list(labels)}) if labels else (form, {})
    write_manifest(folder, make_manifest(folder, options={}, splits=splits, bos=bos, form=form, **of_both, **more))
    return folder


def random_documents(count, longest, seed=0):
    """Documents of 1 to `longest` tokens, of which no two are equal: tokens are their positions modulo 60,000."""
    lengths = np.random.default_rng(seed).integers(1, longest + 1, count)
    return np.split(np.arange(lengths.sum()) % 60_000, np.cumsum(lengths)[:-1])
