"""An OpenAI-compatible server whose documents and conversations stay in the model's memory.

http.py       requests and responses: bounded bodies, event streams, clients that go away
errors.py     what can go wrong, in the form OpenAI's clients understand
params.py     what may be asked: JSON to checked values
prompts.py    messages and documents to token ids, and where the document lies in them
pool.py       memories kept between requests, found by their tokens, bounded in bytes
worker.py     the one thread that runs the model, fair to its clients
jobs.py       reading a document, answering a prompt
documents.py  uploaded texts
metrics.py    counts, as Prometheus reads them
app.py        the routes
start.py      the process: sockets, signals, the end
"""
