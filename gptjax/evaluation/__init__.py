"""How good a model is: held-out loss, perplexity and bits per byte."""
