"""Duplicate documents: exact copies, near duplicates (MinHash, banding, exact verification), repeated passages.

find.py         the whole search, from sketches to the documents that are dropped (start here)
shingles.py     the hashes of a text's words and n-grams
sketch.py       what is kept of each document, shard by shard: hashes, signatures, keys of bands
nodes.py        the documents that share a key with another one
join.py         equal keys, also among more than fit in memory
verify.py       the exact similarity of candidates
processes.py    processes inside the one task of the search
passages.py     passages that occur more than once
"""
