"""Scaling laws: published ones as data (`laws`), repeated data (`repetition`), and fits to one's own runs (`fit`)."""
