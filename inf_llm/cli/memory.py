"""`inf-llm memory`: list, describe, verify or remove saved memories."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from inf_llm.cli.failures import REFUSED, reported, say
from inf_llm.cli.options import Debug, path_argument
from inf_llm.errors import SavedMemoryError
from inf_llm.saved.manifest import NAME, Manifest, read_manifest
from inf_llm.units import size

app = typer.Typer(no_args_is_help=True, help="List, describe, verify or remove saved memories.")

Folder = Annotated[Path, path_argument(help="Folder of a memory.", show_default=False)]
Folders = Annotated[list[Path], path_argument(help="Folders of memories.", show_default=False)]


@app.command("list")
@reported
def list_memories(
    folder: Annotated[Path, path_argument(help="Where they are.")] = Path(),
    debug: Debug = False,
) -> None:
    """List the memories in a folder and in its subfolders, two levels deep."""
    if not folder.is_dir():
        raise SavedMemoryError(f"{folder} is no folder: give one with memories in it")
    manifests = sorted({*folder.glob(NAME), *folder.glob(f"*/{NAME}"), *folder.glob(f"*/*/{NAME}")})
    for path in manifests:
        try:
            typer.echo(f"{path.parent!s:<32} {_line(read_manifest(path.parent))}")
        except SavedMemoryError as error:
            say(f"{path.parent}: {error}")
    if not manifests:
        say(f"{folder}: no memories here; inf-llm read --save FOLDER makes one")


def _line(manifest: Manifest) -> str:
    model = _configured(manifest).get("path", "")
    return f"{manifest.tokens:>12,} tokens {size(manifest.nbytes):>10}  {_printable(model)}"


def _configured(manifest: Manifest) -> dict[str, object]:
    config = manifest.note.get("config")
    model = config.get("model") if isinstance(config, dict) else None
    return model if isinstance(model, dict) else {}


@app.command()
@reported
def info(folder: Folder, debug: Debug = False) -> None:
    """Describe the content of a memory and the model that it belongs to."""
    manifest = read_manifest(folder)
    weights, dtype = str(manifest.identity.get("weights", "")), manifest.identity.get("dtype")
    rows = {
        "tokens": f"{manifest.tokens:,}" + (f", {manifest.rows} rows" if manifest.rows > 1 else ""),
        "text": manifest.note.get("text", ""),
        "blocks": f"{manifest.blocks:,} over all layers",
        "size": f"{size(manifest.nbytes)} in {len(manifest.segments)} segments",
        "saves": f"{manifest.generation}, the last by version {manifest.library}",
        "model": f"{_configured(manifest).get('path', '')} ({dtype}, weights {weights[:12]})",
        "attention": _settings(manifest.identity.get("attention")),
    }
    for name, value in rows.items():
        if value:
            typer.echo(f"{name:<10} {_printable(value)}")


def _settings(attention: object) -> str:
    if not isinstance(attention, dict):
        return "none" if attention is None else str(attention)
    return ", ".join(f"{key} = {value}" for key, value in attention.items())


def _printable(value: object) -> str:
    """Replace control characters, which a foreign folder could use to control the terminal."""
    return "".join(each if each.isprintable() else "?" for each in str(value))


@app.command("verify")
@reported
def verify_memories(folders: Folders, debug: Debug = False) -> None:
    """Read every byte of memories and compare the bytes with their checksums."""
    damages = [damage for folder in folders for damage in _verified(folder)]
    if damages:
        raise typer.Exit(REFUSED)


def _verified(folder: Path) -> list[str]:
    from inf_llm.saved.folder import verify

    try:
        damages = verify(folder)
    except SavedMemoryError as error:
        damages = [str(error)]
    for damage in damages:
        say(f"error: {damage}")
    if not damages:
        typer.echo(f"{folder}: whole")
    return damages


@app.command("rm")
@reported
def remove_memories(folders: Folders, debug: Debug = False) -> None:
    """Remove memories. Other files in their folders stay."""
    from inf_llm.saved.folder import remove

    for folder in folders:
        try:
            remove(folder)
        except OSError as error:
            raise SavedMemoryError(f"{folder}: cannot be removed ({error.strerror})") from error
        say(f"removed {folder}")
