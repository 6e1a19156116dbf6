"""Formats: from the content of a file to its text, by pure functions, one module per format. Sources open the files."""
