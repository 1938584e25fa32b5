"""Reading of a text into a folder: its preparation, and the work itself."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from inf_llm.cli.models import Models
from inf_llm.cli.open_text import check_length, for_memory
from inf_llm.cli.options import memory_line
from inf_llm.errors import SavedMemoryError

if TYPE_CHECKING:
    from inf_llm.cluster.tasks import Work
    from inf_llm.config import RunConfig
    from inf_llm.formats import DocumentText

SECONDS = 30.0
"""Seconds of reading between two saves."""


@dataclass(frozen=True)
class Step:
    """Progress of a reading.

    Attributes:
        done: number of tokens that are read, including those of earlier runs.
        memory: description of the memory in use.
    """

    done: int
    memory: str


@dataclass(frozen=True)
class Saved:
    """The end of a reading: the text is read and saved.

    Attributes:
        bytes: size of its memory.
    """

    bytes: int


@dataclass(frozen=True)
class Reading:
    """A text and the folder for its memory.

    Attributes:
        name: name of the text.
        folder: absolute path of the memory, for a process in another working directory.
        shown: the path as the user gave it.
        config: the configuration, with the format of the memory in the folder.
        ids: tokens of the text.
        held: number of these tokens that the folder holds.
        note: note about the text, which is saved with the memory.
        force: whether to read a text that is known not to fit.
    """

    name: str
    folder: Path
    shown: Path
    config: RunConfig
    ids: list[int]
    held: int
    note: dict[str, Any]
    force: bool


def reading_of(
    chosen: RunConfig,
    tokenizer: Any,
    document: DocumentText,
    name: str,
    folder: Path,
    force: bool,
) -> Reading:
    """Prepare the reading of a text.

    Raises:
        SavedMemoryError: the folder holds another text, or a memory with other settings.
        TextError: the layout cannot take the text, or the text is longer than max_len.
    """
    from inf_llm.generation import Landmarks, choose_layout, start_prompt
    from inf_llm.hf.saving import saved_tokens
    from inf_llm.saved.folder import check_folder

    layout = choose_layout(tokenizer, chosen.conv_type, chosen.control_tokens)
    start = start_prompt(tokenizer, layout, document.text)
    check_length(len(start.ids), chosen.max_len)
    note: dict[str, Any] = {"config": chosen.to_dict(), "text": name, "rest": start.rest}
    note["landmarks"] = [Landmarks.of(document).note()]
    manifest, held = check_folder(folder), 0
    if manifest is not None:
        chosen = for_memory(chosen, folder, manifest)
        tokens = saved_tokens(folder, manifest).tolist()
        _check_text(folder, tokens, start.ids)
        held = len(tokens)
    return Reading(name, folder.absolute(), folder, chosen, start.ids, held, note, force)


def _check_text(folder: Path, held: Sequence[int], wanted: Sequence[int]) -> None:
    """Check that a memory holds the beginning of a text.

    Raises:
        SavedMemoryError: the memory holds other tokens.
    """
    from inf_llm.truncation import common_length

    common = common_length(held, wanted)
    if common < len(held):
        raise SavedMemoryError(
            f"{folder} holds another text: it differs from token {common:,} on: give another "
            "folder, or remove it with inf-llm memory rm"
        )


def make_reader(first: Reading) -> Work[Reading]:
    """Load the model of the first text; return the function that reads texts into folders.

    The errors are those of `load_with_progress`.
    """
    models = Models(first.force)
    models.of(first.config)

    def read(reading: Reading, given: int) -> Iterator[Step | Saved]:
        return _read(*models.of(reading.config), reading)

    return read


def _read(model: Any, tokenizer: Any, reading: Reading) -> Iterator[Step | Saved]:
    """Read the tokens that the folder does not hold yet, and save at intervals."""
    from inf_llm.generation import Session
    from inf_llm.plan.refuse import require_room
    from inf_llm.saved.folder import claimed
    from inf_llm.saved.manifest import read_manifest

    folder, ids, chunk = reading.folder, reading.ids, reading.config.chunk_size
    if not reading.force:
        require_room(reading.config, len(ids), model.dtype)
    with claimed(folder) as held:
        session = Session(model, tokenizer, chunk)
        if held is not None:
            session = Session.load(folder, model, tokenizer, chunk)
            _check_text(folder, session.ids, ids)
        if held is None or len(session.ids) < len(ids):
            yield from _steps(session, reading)
    yield Saved(read_manifest(folder).nbytes)


def _steps(session: Any, reading: Reading) -> Iterator[Step]:
    ids, saved = reading.ids, time.perf_counter()
    for first in range(len(session.ids), len(ids), session.chunk_size):
        session.read(ids[first : first + session.chunk_size])
        yield Step(len(session.ids), memory_line(session.stats()))
        if time.perf_counter() - saved >= SECONDS:
            session.save(reading.folder, note=reading.note)
            saved = time.perf_counter()
    session.save(reading.folder, note=reading.note)
