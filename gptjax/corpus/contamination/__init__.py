"""Evaluation text in a corpus: which documents hold some, and which evaluation items stand in the corpus."""
