"""The token stream of a prepared folder: written from encoded shards, and traced back to its documents.

assemble.py     encoded shards to the stream of each split, with documents repeated by weight
shards.py       its files
trace.py        from a place in the stream to the document
"""
