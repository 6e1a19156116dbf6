"""Evaluation text in a corpus: which documents contain some, and which evaluation items the corpus contains."""
