"""Reading and answering: feed a prompt in chunks, keep the session, measure perplexity."""

from inf_llm.generation.perplexity import Bucket, Perplexity, measure_perplexity
from inf_llm.generation.prompt import encode, fit, read_text, user_message
from inf_llm.generation.report import save_report
from inf_llm.generation.session import Answer, Session

__all__ = [
    "Answer",
    "Bucket",
    "Perplexity",
    "Session",
    "encode",
    "fit",
    "measure_perplexity",
    "read_text",
    "save_report",
    "user_message",
]
