"""Duplicate documents: exact copies, near copies (MinHash, banding, exact verification), repeated passages."""
