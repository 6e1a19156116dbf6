"""Which documents are worth training on, and what is repaired or masked in them: pure functions of texts and arrays."""
