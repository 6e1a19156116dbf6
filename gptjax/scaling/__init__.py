"""Scaling laws.

laws.py             published ones, as data
repetition.py       the loss when text is repeated
fit.py              a law fitted to your own runs
"""
