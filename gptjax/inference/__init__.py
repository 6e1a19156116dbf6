"""Trained parameters to text: the cache, sampling, and generation in one compiled loop."""
