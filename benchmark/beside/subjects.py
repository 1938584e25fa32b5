"""The registry of subjects by name."""

from __future__ import annotations

import importlib

from benchmark.beside.base import Subject
from benchmark.beside.job import Job

OWN = "inf-llm"
"""The subject that all others are compared with."""
_HERE, _SERVER = "benchmark.beside.torch_subjects", "benchmark.beside.llama_server"
SUBJECTS: dict[str, tuple[str, str]] = {
    OWN: (_HERE, "Package"),
    "inf-llm-dense": (_HERE, "DensePackage"),
    "transformers": (_HERE, "Transformers"),
    "transformers-chunks": (_HERE, "TransformersInChunks"),
    "bm25": (_HERE, "Retrieval"),
    "llama.cpp-f16": (_SERVER, "LlamaServer"),
    "llama.cpp-q8": (_SERVER, "EightBitServer"),
    "llama.cpp-yarn": (_SERVER, "StretchedServer"),
}
"""Module and class of each subject, imported in the process that measures the subject."""


def make(job: Job) -> Subject:
    """Load and return the subject of a job."""
    module, name = SUBJECTS[job.subject]
    made: Subject = getattr(importlib.import_module(module), name)(job)
    return made


def of_server(name: str) -> bool:
    """Return whether a subject needs llama.cpp's server and a GGUF file."""
    return SUBJECTS[name][0] == _SERVER
