"""gptjax: a GPT-style language model from scratch on JAX, from raw text to samples."""

__version__ = "0.1.0"
