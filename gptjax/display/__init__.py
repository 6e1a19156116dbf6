"""What a person reads.

terminal.py         safe terminal output, whatever a text contains
formatting.py       numbers, bytes and durations in a few characters
differences.py      the differences of two trees of settings
figures.py          the style of all plots
"""
