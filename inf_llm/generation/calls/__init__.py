"""Function calls: the forms in which model families write them, and tool descriptions in prompts.

Each form is one module of this package and one row of `inf_llm.variants.CALLS`.
"""

from inf_llm.generation.calls.base import Call, CallForm, Tool
from inf_llm.generation.calls.choose import form_of
from inf_llm.generation.calls.reader import CallReader
from inf_llm.generation.calls.words import in_words, with_tools

__all__ = ["Call", "CallForm", "CallReader", "Tool", "form_of", "in_words", "with_tools"]
