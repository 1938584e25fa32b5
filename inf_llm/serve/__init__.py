"""An OpenAI-compatible server whose documents and conversations stay in the model's memory.

The process and the connections:
    start.py              the server process: build, run, shut down
    web.py                the socket, the limit on connections, the shutdown
    connection.py         time limits of one HTTP connection
    app.py                the routes
    guard.py              checks and headers that apply to every request
    origins.py            allowed origins (CORS) and host names
    admission.py          limits on a client: request bodies, share of the queue
    metrics.py            metrics for Prometheus
    log_limit.py          a rate limit on logs
    heap.py               return of unused memory to the operating system
    page.py               the chat page: its HTML, scripts, styles and pictures

Requests as checked values:
    wire.py               request bodies of bounded size, JSON, server-sent events
    errors.py             errors in the format of OpenAI's API
    values.py             checks of numbers, booleans and texts in JSON
    params.py             the JSON of a request as a question
    messages.py           messages of a chat
    sampling.py           sampling parameters
    tools.py              functions that the model may call
    answer_format.py      the requested format of an answer
    vendors.py            parameters of other servers: ignored, accepted or refused
    response_question.py  the JSON of a request to /v1/responses as a question
    response_items.py     its input items as messages

From questions to answers:
    intake.py             prompts, tokenized before they wait for the model
    fair_queue.py         threads beside the event loop for such work
    prompts.py            messages and documents to token ids, and back to places in a document
    shapes.py             the grammar of an answer, and the functions it may call
    worker.py             the one thread that runs the model, in steps
    scheduler.py          the scheduler: which job runs the next step
    pace.py               the number of prompt tokens in a step
    jobs.py               jobs of the worker: read a document, answer prompts
    rows.py               answers that are being generated
    answers.py            the answers of a request, and the events of their generation
    logprobs.py           log-likelihoods of tokens
    passages.py           passages that were recalled for an answer
    completions.py        responses in the formats of OpenAI's completion routes
    response_form.py      responses in the format of /v1/responses
    token_routes.py       routes that tokenize and detokenize

Documents:
    documents.py          uploaded texts, bounded in number and size
    document_routes.py    their routes
    uploads.py            texts that are being read
    excerpts.py           characters of an uploaded text
    library.py            documents and memories on a disk
    folder_lock.py        locks for the folder of a library
"""

from inf_llm.errors import MissingExtraError


def require_extra() -> None:
    """Raise `MissingExtraError` unless the packages of the extra "serve" are installed."""
    try:
        import prometheus_client  # noqa: F401
        import starlette  # noqa: F401
        import uvicorn  # noqa: F401
    except ImportError as error:
        raise MissingExtraError(
            f"serving needs {error.name}: pip install 'inf-llm[serve]'"
        ) from error
