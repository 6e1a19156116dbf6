"""Duplicate documents: exact copies, near duplicates (MinHash, banding, exact verification), repeated passages."""
