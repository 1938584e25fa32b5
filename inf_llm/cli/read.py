"""`inf-llm read`: read a text into a folder, once and for all."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from inf_llm.cli.documents import open_document
from inf_llm.cli.failures import reported, say
from inf_llm.cli.open_text import check_length, for_memory
from inf_llm.cli.options import (
    Config,
    Debug,
    File,
    Force,
    Model,
    Overrides,
    configuration,
    load_aloud,
    memory_line,
    path_option,
)
from inf_llm.cli.progress import TokenProgress
from inf_llm.errors import SavedMemoryError
from inf_llm.units import pace, size

if TYPE_CHECKING:
    from inf_llm.generation import Session

SECONDS = 30.0
"""Of reading, after which what was read is saved."""


@reported
def read(
    save: Annotated[
        Path,
        path_option("--save", "-s", help="Folder for the memory. A memory there is gone on with."),
    ],
    config: Config = None,
    model: Model = None,
    file: File = None,
    overrides: Overrides = None,
    force: Force = False,
    debug: Debug = False,
) -> None:
    """Read a text of any length into a folder, for `inf-llm run --memory`.

    It is saved on the way: a reading that was interrupted goes on where it was. The folder is as
    private as the text.
    """
    chosen = configuration(config, model, overrides)
    from inf_llm.generation import Landmarks, Session, choose_layout, start_prompt
    from inf_llm.plan.refuse import require_room
    from inf_llm.saved.folder import check_folder, claimed

    held = check_folder(save)
    note: dict[str, Any] = {"config": chosen.to_dict()}
    if held is not None:
        chosen = for_memory(chosen, save, held)
    document = open_document(file)
    loaded, tokenizer = load_aloud(chosen, force)
    layout = choose_layout(tokenizer, chosen.conv_type, chosen.control_tokens)
    start = start_prompt(tokenizer, layout, document.text)
    check_length(len(start.ids), chosen.max_len)
    if not force:
        require_room(chosen, len(start.ids), loaded.dtype)
    name = "standard input" if file is None else str(file)
    note |= {"text": name, "rest": start.rest, "landmarks": [Landmarks.of(document).note()]}
    with claimed(save) as held:
        session = Session(loaded, tokenizer, chosen.chunk_size)
        if held is not None:
            session = Session.load(save, loaded, tokenizer, chosen.chunk_size)
            _check_text(save, session.ids, start.ids)
            say(f"{len(session.ids):,} of {len(start.ids):,} tokens are in {save} already")
        if held is None or len(session.ids) < len(start.ids):
            _read_and_save(session, start.ids, save, note)
    say(f"{save}: {len(session.ids):,} tokens, {size(_bytes(save))}")


def _check_text(folder: Path, held: list[int], wanted: list[int]) -> None:
    """See that the memory is a beginning of the text.

    Raises:
        SavedMemoryError: it is not.
    """
    from inf_llm.truncation import common_length

    common = common_length(held, wanted)
    if common < len(held):
        raise SavedMemoryError(
            f"{folder} holds another text: it differs from token {common:,} on: give another "
            "folder, or remove it with inf-llm memory rm"
        )


def _read_and_save(session: Session, ids: list[int], folder: Path, note: dict[str, Any]) -> None:
    chunk, saved = session.chunk_size, time.perf_counter()
    with TokenProgress(lambda: memory_line(session.stats())) as progress:
        for first in range(len(session.ids), len(ids), chunk):
            session.read(ids[first : first + chunk])
            progress(len(session.ids), len(ids))
            if time.perf_counter() - saved >= SECONDS:
                session.save(folder, note=note)
                saved = time.perf_counter()
        session.save(folder, note=note)
        say(f"read in {pace(len(ids), progress.seconds)}")


def _bytes(folder: Path) -> int:
    from inf_llm.saved.manifest import read_manifest

    return read_manifest(folder).nbytes
