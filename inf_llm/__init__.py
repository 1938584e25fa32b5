"""InfLLM for everyone: a training-free long-context memory for any Hugging Face decoder."""

__version__ = "0.1.0"
