"""`inf-llm read`: read texts once, into folders that hold their memories."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Optional

from inf_llm.cli.documents import open_document
from inf_llm.cli.failures import reported, say
from inf_llm.cli.many import (
    Bars,
    Words,
    check_engine,
    out_option,
    places,
    require_seen,
    split_words,
    work_off,
)
from inf_llm.cli.options import (
    Address,
    Config,
    Debug,
    Engine,
    File,
    Force,
    Model,
    configuration,
    path_option,
)
from inf_llm.cli.reading import Reading, Saved, Step, make_reader, reading_of
from inf_llm.errors import TextError
from inf_llm.saved.manifest import NAME
from inf_llm.units import pace, size


@reported
def read(
    save: Annotated[
        Optional[Path],  # noqa: UP045
        path_option("--save", "-s", help="Folder for the memory. A memory there is gone on with."),
    ] = None,
    config: Config = None,
    model: Model = None,
    file: File = None,
    out: Annotated[
        Optional[Path],  # noqa: UP045
        out_option(help="Folder with a folder for the memory of each FILE."),
    ] = None,
    engine: Engine = "local",
    address: Address = None,
    words: Words = None,
    force: Force = False,
    debug: Debug = False,
) -> None:
    """Read a text of any length into a folder, for `inf-llm run --memory`; or several texts.

    The memory is saved at intervals: the same command continues an interrupted reading from the
    last save. The folder is as private as the text.
    """
    files, overrides = split_words(words, out)
    _check_places(save, file, out)
    check_engine(engine, address)
    chosen = configuration(config, model, overrides)
    from inf_llm.hf.load import load_tokenizer
    from inf_llm.saved.folder import check_folder

    texts: list[tuple[Path | None, Path]] = [*places(files, out)] if out is not None else []
    if save is not None:
        texts.append((file, save))
    for _, folder in texts:
        check_folder(folder)
    documents = [open_document(each) for each, _ in texts]
    tokenizer = load_tokenizer(chosen)
    readings = []
    for (each, folder), document in zip(texts, documents, strict=True):
        name = "standard input" if each is None else str(each)
        readings.append(reading_of(chosen, tokenizer, document, name, folder, force))
    _say_held(readings, out)
    left = [each for each in readings if out is None or each.held < len(each.ids)]
    _read_all(left, engine, address)


def _check_places(save: Path | None, file: Path | None, out: Path | None) -> None:
    if save is None and out is None:
        raise TextError(
            "where the memory goes is not said: give --save FOLDER, or --out FOLDER for several "
            "texts"
        )
    for option, given in (("--save", save), ("--file", file)):
        if given is not None and out is not None:
            raise TextError(f"{option} is for one text, and --out for several: leave one out")


def _say_held(readings: Sequence[Reading], out: Path | None) -> None:
    """Print the number of tokens that earlier runs have read."""
    for each in readings:
        if each.held and (out is None or each.held < len(each.ids)):
            say(f"{each.held:,} of {len(each.ids):,} tokens are in {each.shown} already")
    whole = sum(each.held == len(each.ids) for each in readings)
    if whole and out is not None:
        say(f"{whole} of {len(readings)} texts are in {out} already")


def _read_all(readings: Sequence[Reading], engine: str, address: str | None) -> None:
    """Read texts with a progress bar.

    The bar shows the memory in use for one text, and the number of read texts for several.
    """
    done = {each.name: each.held for each in readings}
    total, ended = sum(len(each.ids) for each in readings), 0

    def on_item(reading: Reading, item: Step | Saved) -> None:
        nonlocal ended
        if isinstance(item, Step):
            done[reading.name] = item.done
            status = item.memory if len(readings) == 1 else f"{ended} of {len(readings)} texts"
            bars.show("tokens", sum(done.values()), total, status)
            return
        ended += 1
        require_seen(reading.folder / NAME, reading.shown)
        if len(readings) == 1 and bars.seconds:
            say(f"read in {pace(len(reading.ids), bars.seconds)}")
        say(f"{reading.shown}: {len(reading.ids):,} tokens, {size(item.bytes)}")

    with Bars({"tokens": ("reading", "read")}) as bars:
        work_off(readings, make_reader, engine, address, on_item)
