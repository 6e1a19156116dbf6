"""What makes a document worth training on, and what of it is mended or masked: pure functions of texts and arrays."""
