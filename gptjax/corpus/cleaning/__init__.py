"""Which documents are worth training on, and what is repaired or masked in them: pure functions of texts and arrays.

config.py       what the section `cleaning` of a config means for each source (start here)
repair.py       broken encodings and characters; personal.py: personal data, masked
language.py     the language of a text
rules.py        a rule compares a figure of a text with a published threshold
statistics.py   these figures, for many texts at once; repetition.py: those of repeated lines and n-grams
characters.py   many texts as one array, on which they are computed
"""
