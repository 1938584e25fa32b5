"""An OpenAI-compatible server whose documents and conversations stay in the model's memory.

wire.py       between bytes and values: bounded bodies, JSON, event streams
guard.py      what holds for every request: its host, its headers, that it is counted
errors.py     what can go wrong, in the form OpenAI's clients understand
values.py     numbers, switches and texts of JSON, checked
sampling.py   how answers are made
params.py     what may be asked: JSON to checked values
vendors.py    parameters of other servers, and what is made of them
prompts.py    messages and documents to token ids, and where the document lies in them
worker.py     the one thread that runs the model, in steps
turns.py      whose step is next
pace.py       how long a step of reading is
answers.py    the answers of a request, and events while they are given
passages.py   what was recalled for an answer
jobs.py       reading a document, answering prompts
completions.py  the forms that OpenAI gave answers
rows.py       answers that are being given
logprobs.py   log-likelihoods of tokens
token_routes.py  tokens of prompts, and back
origins.py    pages of other origins, and host names
documents.py  uploaded texts
excerpts.py   characters of one
page.py       the chat page: its start, and the files that it may load
metrics.py    counts, as Prometheus reads them
app.py        the routes
start.py      the process: sockets, signals, the end
"""

from inf_llm.errors import MissingExtraError


def require_extra() -> None:
    """Raise `MissingExtraError` unless what serving needs is installed."""
    try:
        import prometheus_client  # noqa: F401
        import starlette  # noqa: F401
        import uvicorn  # noqa: F401
    except ImportError as error:
        raise MissingExtraError(
            f"serving needs {error.name}: pip install 'inf-llm[serve]'"
        ) from error
