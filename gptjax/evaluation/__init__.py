"""Evaluation of models: held-out loss, perplexity, bits per byte, and tasks."""
