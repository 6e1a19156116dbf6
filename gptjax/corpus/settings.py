"""Every field of a corpus's config except those of cleaning: type, default, allowed values, and meaning."""

from __future__ import annotations

import dataclasses
from typing import Annotated, Any, Literal

from gptjax.settings import Count, Limit, Natural, Positive, Section, UpToOne, at_most

Share = Annotated[float, Limit(lambda v: 0 < v <= 1, "must be in (0, 1]")]


@dataclasses.dataclass(frozen=True)
class DuplicateSettings(Section):
    # copies to drop; exact: equal except for whitespace, near: also similar texts
    kind: Literal["none", "exact", "near"] = "near"
    threshold: Share = 0.8  # near: smallest Jaccard similarity of two copies, by their sets of shingles
    # near: what a shingle is made of; character: for scripts without spaces between words
    unit: Literal["word", "character"] = "word"
    ngram: Count = 5  # near: words or characters per shingle
    # near: number of MinHash's hash functions; beyond the limit, choosing bands would take longer than hashing
    permutations: Annotated[Count, at_most(1 << 16)] = 128
    verify: bool = True  # near: compare candidates exactly, by all their shingles
    # near, verified: a document goes if it resembles one that is kept, or any that a chain of copies leads to
    resembling: Literal["kept", "chain"] = "kept"
    scope: Literal["global", "source"] = "global"  # source: compare only documents of the same source
    earlier: tuple[str, ...] = ()  # prepared folders: drop documents that are copies of documents in them
    memory_megabytes: Count = 512  # for finding equal keys; the rest goes to disk. 100 bytes per copy are in addition


@dataclasses.dataclass(frozen=True)
class PassageSettings(Section):
    # repeated text to search for; window: any run of words
    kind: Literal["none", "window", "paragraph", "line"] = "none"
    words: Count = 50  # words of the shortest passage to search for
    # only count later copies, or cut them out (window may break code)
    action: Literal["report", "remove"] = "report"
    memory_megabytes: Count = 512  # for finding equal hashes; the rest goes to disk


@dataclasses.dataclass(frozen=True)
class ContaminationSettings(Section):
    sets: tuple[Any, ...] = ()  # evaluation sets whose text must not be in the training text: (evaluation(…), …)
    ngram: Count = 13  # a document with this many words in a row of an evaluation text contains it
    least_words: Count = 8  # texts shorter than ngram must match completely; texts shorter than this are ignored
    least_hits: Count = 1  # a document with this many different n-grams of one set is contaminated
    action: Literal["remove", "report"] = "remove"  # drop contaminated documents, or only count them


@dataclasses.dataclass(frozen=True)
class TokenizerSettings(Section):
    name: str = "bpe"  # bpe | unigram | byte | char | a prepared folder or tokenizer file to reuse
    source_name: str = ""  # pairs: the sources' own tokenizer, as for `name`; '': one for both sides
    source_vocab_size: Natural = 0  # pairs with two tokenizers: the sources' vocab_size
    vocab_size: Natural = 0  # 0: every character for char; for bpe and unigram 8192, or fewer if the text is small
    split_digits: bool = True  # bpe, unigram: every digit is a separate token
    sample_megabytes: Positive = 100.0  # bpe, unigram: learn from this much training text, by the sources' weights
    compare: tuple[str, ...] = ()  # tokenizers (folders or files) to compare with: bytes per token, in the manifest


@dataclasses.dataclass(frozen=True)
class SplitSettings(Section):
    # share held out; 0: no validation split
    validation_fraction: Annotated[float, Limit(lambda v: 0 <= v < 1, "must be in [0, 1)")] = 0.05
    validation_documents: Natural = 0  # hold out this many documents instead; all pairs of one source stay together
    # share of a third split, `test`, which training never reads; 0: none
    test_fraction: Annotated[float, Limit(lambda v: 0 <= v < 1, "must be in [0, 1)")] = 0.0
    test_documents: Natural = 0  # a number of documents for the split `test`, instead of test_fraction
    # The largest share of one document in the validation text expected of its source. If a longer document is held
    # out, its beginning is validation text and the rest is not used. 1: use all of it.
    largest_share: Share = 0.05
    # document: hold out some documents, copies together with them; tail: hold out the end of every document;
    # auto: tail if there are few documents; for pairs and labelled texts always documents, by their source
    by: Literal["auto", "document", "tail"] = "auto"


@dataclasses.dataclass(frozen=True)
class TokenSettings(Section):
    # The token before each document, in training, evaluation and generation. False: the end-of-text token of the
    # document before; True: a beginning-of-text token.
    bos: bool = False
    shard_tokens: Count = 1 << 28  # tokens per file


@dataclasses.dataclass(frozen=True)
class Settings(Section):
    sources: tuple[Any, ...] = ()  # where documents come from: (source(…), source(…), …)
    seed: Natural = 0  # for the split, samples and hashing
    shard_megabytes: Count = 128  # of text per task; limits memory, and the work lost when a worker is killed
    max_document_megabytes: Positive = 4.0  # longer documents are cut between paragraphs
    # share of a source's documents and files that may be unreadable; a source may have its own
    max_failure_share: UpToOne = 0.5
    least_failures: Natural = 20  # a source with fewer unreadable documents and files does not end the run
    # seconds for one document in any stage; a process that takes longer is killed, and at the third time the document
    # is set aside. 0: no limit
    max_document_seconds: Natural = 600
    # conversations: what is written around messages: chatml | turns | alpaca | a JSON file of your own
    # (gptjax/conversation/template.py); its control tokens are added to the tokenizer
    template: str = "chatml"
    stages: tuple[Any, ...] = ()  # your own stages, in addition to the built-in ones: (stage(…), …)
    # numbers that your own functions give each document, for rules and sampling weights: (score(…), …)
    scores: tuple[Any, ...] = ()
    documents: bool = False  # also write all documents and what is known about them: documents-00000.parquet …
    duplicates: DuplicateSettings = DuplicateSettings()
    passages: PassageSettings = PassageSettings()
    contamination: ContaminationSettings = ContaminationSettings()
    tokenizer: TokenizerSettings = TokenizerSettings()
    split: SplitSettings = SplitSettings()
    tokens: TokenSettings = TokenSettings()
