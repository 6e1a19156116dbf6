"""Scaling laws: published ones as data (`laws`), repeated data (`repetition`), and fits to your own runs (`fit`)."""
