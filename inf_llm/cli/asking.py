"""The texts that many questions are about, and the files of the answers."""

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
    """A text that questions are about.

    Attributes:
        name: name of the text in messages.
        config: the configuration that reads the text.
        memory: folder of a memory; None without one.
        document: text to read after the memory; empty for the memory alone.
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
    """Return files and folders of memories as texts, each with its file of answers.

    Args:
        files: files of texts, and folders of memories.
        out: folder for the files of answers.
        configured: returns the configuration of a memory, or for None that of a text.

    Raises:
        TextError: two texts would have the same file of answers, or a text cannot be read.
        SavedMemoryError: a memory cannot be used.
    """
    from inf_llm.formats import DocumentText

    texts, nothing = [], DocumentText("")
    for file, answers in places(files, out, ".jsonl"):
        memory = file if (file / NAME).exists() else None
        config = configured(memory)
        document = open_document(file) if memory is None else nothing
        texts.append(Text(str(file), config, memory, document, answers))
    return texts


def askings_of(
    texts: Iterable[Text], questions: Sequence[Question], max_new_tokens: int, force: bool
) -> list[Asking]:
    """Combine each text with the questions; for errors see `subject_of` and `asking_of`."""
    from inf_llm.hf.load import load_tokenizer

    tokenizers: dict[tuple[str, str | None], Any] = {}
    askings = []
    for text in texts:
        key = text.config.model.path, text.config.model.tokenizer_path
        if key not in tokenizers:
            tokenizers[key] = load_tokenizer(text.config)
        subject = subject_of(text.config, tokenizers[key], text.memory, text.document)
        options = questions, text.answers, max_new_tokens, force
        askings.append(asking_of(text.name, subject, tokenizers[key], *options))
    return askings
