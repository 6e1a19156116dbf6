"""Evaluation text in a corpus: which documents contain some, and which evaluation items the corpus contains.

evaluations.py  the items of evaluation sets, read from their files
index.py        the n-grams of all items
match.py        these n-grams, found in documents
"""
