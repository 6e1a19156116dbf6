"""Measures packing documents of 100 billion tokens into rows: python experiments/loader/packing_at_scale.py

Packing depends only on lengths, so there are no tokens: a file holds the offsets of documents of random length
(lognormal, median 400 tokens, mean 1,000), as in a prepared folder. Prints how long the index takes to make, the peak
memory of the process, how many bytes are sent to a loader process, and the share of positions filled, compared with a
packing of all documents at once where that is possible.
"""

from __future__ import annotations

import os
import pickle
import resource
import tempfile
import time
from pathlib import Path

import numpy as np
from absl import app, flags

from gptjax.data import packed_index

TOKENS = flags.DEFINE_multi_integer("tokens", [10**8, 10**9, 10**10, 10**11], "How many documents to pack.")
SEQUENCE_LENGTH = flags.DEFINE_integer("sequence_length", 2048, "Positions per row.")
MEAN = 1000
AT_ONCE = 1 << 22  # documents whose lengths are drawn in one call


class Documents:
    """The part of a token source that the index uses."""

    own_begin = 0

    def __init__(self, path: Path, tokens: int):
        self.folder, self._path, self.num_tokens = path.parent, path, 0
        self.offsets_hash = str(tokens)
        rng = np.random.default_rng(0)
        sigma = (2 * np.log(MEAN / 400)) ** 0.5
        with open(path, "wb") as file:
            file.write(np.zeros(1, np.uint64).tobytes())
            while self.num_tokens < tokens:
                lengths = np.maximum(rng.lognormal(np.log(400), sigma, min(AT_ONCE, tokens // MEAN)), 1).astype(
                    np.uint64
                )
                ends = self.num_tokens + np.cumsum(lengths)
                file.write(ends.astype(np.uint64).tobytes())
                self.num_tokens = int(ends[-1])

    def document_offsets(self) -> np.ndarray:
        return np.memmap(self._path, np.uint64, mode="r")


def main(_) -> None:
    print("| tokens | documents | made in | opened again in | sent | peak memory | positions filled | by one packing |")
    print("|---" * 8 + "|")
    length = SEQUENCE_LENGTH.value
    for tokens in TOKENS.value:
        with tempfile.TemporaryDirectory() as folder:
            os.environ["XDG_CACHE_HOME"] = folder
            source = Documents(Path(folder) / "offsets", tokens)
            started = time.perf_counter()
            index = packed_index.open_index(source, length)
            made = time.perf_counter() - started
            started = time.perf_counter()
            packed_index.open_index(source, length)
            again = time.perf_counter() - started
            memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
            whole = "not tried"
            if tokens <= 10**9:  # the largest corpus that is also packed at once
                _, lengths = packed_index.pieces_of(source.document_offsets().astype(np.int64), 0, length)
                _, num_rows = packed_index.best_fit(lengths, length)
                whole = f"{source.num_tokens / num_rows / length:.2%}"
            full = source.num_tokens / index.num_rows / length
            documents = len(source.document_offsets()) - 1
            print(
                f"| {source.num_tokens:.1e} | {documents:,} | {made:.1f} s | {again * 1e3:.1f} ms "
                f"| {len(pickle.dumps(index))} bytes | {memory:.2f} GiB | {full:.2%} | {whole} |",
                flush=True,
            )


if __name__ == "__main__":
    app.run(main)
