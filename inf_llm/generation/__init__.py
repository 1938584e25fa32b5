"""Sessions that read a prompt in chunks and generate answers, and perplexity measurement."""

from inf_llm.generation.control import as_text
from inf_llm.generation.documents import (
    check_document,
    document_of,
    piped_document,
    read_document,
    read_text,
)
from inf_llm.generation.ends import answer_ends
from inf_llm.generation.landmarks import Landmarks
from inf_llm.generation.layout import Layout, choose_layout
from inf_llm.generation.perplexity import Bucket, Perplexity, measure_perplexity
from inf_llm.generation.prompt_start import PromptStart, finish_prompt, start_prompt
from inf_llm.generation.report import save_report
from inf_llm.generation.session import Answer, Session
from inf_llm.generation.tokens import encode
from inf_llm.truncation import fit

__all__ = [
    "Answer",
    "Bucket",
    "Landmarks",
    "Layout",
    "Perplexity",
    "PromptStart",
    "Session",
    "answer_ends",
    "as_text",
    "check_document",
    "choose_layout",
    "document_of",
    "encode",
    "finish_prompt",
    "fit",
    "measure_perplexity",
    "piped_document",
    "read_document",
    "read_text",
    "save_report",
    "start_prompt",
]
