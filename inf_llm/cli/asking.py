"""Which texts many questions are about, and where the answers go."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from inf_llm.cli.answers import Asking, asking_of
from inf_llm.cli.documents import open_document
from inf_llm.cli.many import places
from inf_llm.cli.open_text import subject_of
from inf_llm.saved.manifest import NAME

if TYPE_CHECKING:
    from inf_llm.config import RunConfig
    from inf_llm.formats import DocumentText
    from inf_llm.generation.questions import Question


@dataclass(frozen=True)
class Text:
    """What questions are about.

    Attributes:
        name: for messages.
        config: what reads it.
        memory: folder of a memory; None without one.
        document: what is read behind it; empty where nothing is.
        answers: file of the answers.
    """

    name: str
    config: RunConfig
    memory: Path | None
    document: DocumentText
    answers: Path


def texts_of(
    files: Sequence[Path], out: Path, configured: Callable[[Path | None], RunConfig]
) -> list[Text]:
    """Files, and folders of memories, each with a file of answers in a folder.

    Args:
        files: of both kinds.
        out: the folder.
        configured: the configuration of a memory, or of a text where it is None.

    Raises:
        TextError: two would have the same file, or a text cannot be read.
        SavedMemoryError: a memory cannot be used.
    """
    from inf_llm.formats import DocumentText

    found, nothing = [], DocumentText("")
    for file, answers in places(files, out, ".jsonl"):
        memory = file if (file / NAME).exists() else None
        config = configured(memory)
        document = open_document(file) if memory is None else nothing
        found.append(Text(str(file), config, memory, document, answers))
    return found


def askings_of(
    texts: Iterable[Text], questions: Sequence[Question], max_new_tokens: int, force: bool
) -> list[Asking]:
    """Each text with the same questions; raises as `subject_of` and `asking_of`."""
    from inf_llm.hf.load import load_tokenizer

    tokenizers: dict[tuple[str, str | None], Any] = {}
    found = []
    for text in texts:
        key = text.config.model.path, text.config.model.tokenizer_path
        if key not in tokenizers:
            tokenizers[key] = load_tokenizer(text.config)
        subject = subject_of(text.config, tokenizers[key], text.memory, text.document)
        asked = questions, text.answers, max_new_tokens, force
        found.append(asking_of(text.name, subject, tokenizers[key], *asked))
    return found
