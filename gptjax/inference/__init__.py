"""Generates text from trained parameters: sampling, beam search, and generation in one compiled loop."""
