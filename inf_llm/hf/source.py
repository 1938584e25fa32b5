"""The location of a model's files: a folder, a GGUF file, or a name on the hub."""

from __future__ import annotations

import contextlib
import importlib.util
import re
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from inf_llm.errors import ConfigError, MissingExtraError, reason
from inf_llm.hf import files, gguf

DEMO = Path(__file__).parent.parent / "assets" / "demo"
_HUB_NAME = re.compile(r"[\w-][\w.-]*(/[\w.-]+)?", re.ASCII)
_HUB_FILE = re.compile(r"(?P<repo>[\w.-]+/[\w.-]+):(?P<file>.+\.gguf)", re.IGNORECASE)

_SHOWN = 300
"""Characters of a path that an error message shows."""


@dataclass(frozen=True)
class Source:
    """The location that `from_pretrained` loads from.

    Attributes:
        where: the setting that names the location, for messages.
        name: a folder or a hub name; unused for a GGUF file.
        gguf: the GGUF file, or None.
        local: whether the setting names files on this computer.
    """

    where: str
    name: str
    gguf: Path | None
    local: bool

    @contextlib.contextmanager
    def arguments(self) -> Iterator[tuple[str, dict[str, str]]]:
        """Yield the name and the keywords for `from_pretrained`.

        A GGUF file goes with an empty folder as the name. With its own folder, transformers would
        mix it with any config.json and tokenizer.json beside it. transformers recognises a GGUF
        file only by its suffix, so a file without it, as in Ollama's store, gets a link.
        """
        if self.gguf is None:
            yield self.name, {}
        else:
            with tempfile.TemporaryDirectory() as empty:
                file = self.gguf.absolute()
                if file.suffix != ".gguf":
                    link = Path(empty, "links", "model.gguf")
                    link.parent.mkdir()
                    link.symlink_to(file)
                    file = link
                yield empty, {"gguf_file": str(file)}

    @property
    def weight_files(self) -> list[Path]:
        """The weight files; empty if they are not on this computer."""
        if self.gguf is not None:
            return [self.gguf]
        return files.weight_files(Path(self.name)) if self.local else []

    @property
    def hint(self) -> str:
        """Advice where the location cannot be loaded."""
        if self.local:
            return "give a folder with config.json and weights, or a GGUF file"
        return (
            "give a local folder, a hub name while the hub can be reached, or of a repository of "
            "GGUF files one of them (owner/name:FILE.gguf)"
        )


def find(key: str, path: str, what: str) -> Source:
    """Find the location that a path in a configuration names.

    Args:
        key: the setting's name: "path" or "tokenizer_path".
        path: a folder, a GGUF file, "demo", a hub name, or "owner/name:FILE.gguf" on the hub.
        what: content that must be there: "model" or "tokenizer".

    Raises:
        ConfigError: there is no such folder or file, or it cannot be a model.
        MissingExtraError: it is a GGUF file, and the package that reads it is not installed.
    """
    shown = path if len(path) <= _SHOWN else path[:_SHOWN] + "..."
    where = f"model.{key} = {shown!r}"
    try:
        source = _found(where, path)
        problem = _problem(source, what)
    except (OSError, RuntimeError) as error:  # RuntimeError: ~ of an unknown user
        cause = getattr(error, "strerror", None) or error
        raise ConfigError(f"{where}: cannot be read: {cause}") from None
    if problem:
        raise ConfigError(f"{where}: {problem}")
    return source


def _found(where: str, path: str) -> Source:
    if path == "demo":
        return Source(where, str(DEMO), None, True)
    here = Path(path).expanduser()
    if here.is_dir():
        return Source(where, str(here), _only_gguf(where, here), True)
    if here.exists():
        return Source(where, str(here.parent), _as_gguf(where, here), True)
    on_hub = _HUB_FILE.fullmatch(path)
    if on_hub:
        return Source(where, on_hub["repo"], _fetched(where, **on_hub.groupdict()), False)
    if not _HUB_NAME.fullmatch(path) or path.lower().endswith(".gguf"):
        raise ConfigError(
            f"{where}: there is no such folder or file; give a folder with config.json and "
            "weights, a GGUF file, a hub name, or 'demo'"
        )
    return Source(where, path, None, False)


def _problem(source: Source, what: str) -> str | None:
    if source.gguf is not None:
        _require_gguf()
        model = what == "model"
        return (gguf.problem if model else gguf.tokenizer_problem)(source.gguf)
    if not source.local:
        return None
    folder = Path(source.name)
    return files.model_problem(folder) if what == "model" else files.tokenizer_problem(folder)


def _only_gguf(where: str, folder: Path) -> Path | None:
    """Return the GGUF file of a folder that has no other weights, or None."""
    gguf_files = sorted(file for file in folder.iterdir() if file.suffix.lower() == ".gguf")
    if not gguf_files or any((folder / name).exists() for name in files.WEIGHTS):
        return None
    if len(gguf_files) > 1:
        names = ", ".join(file.name for file in gguf_files)
        raise ConfigError(f"{where}: has several GGUF files ({names}): name one of them")
    return gguf_files[0]


def _as_gguf(where: str, file: Path) -> Path:
    if file.is_file() and (wrong := files.pointer_problem(file)):
        raise ConfigError(f"{where}: {wrong}")
    if not file.is_file() or not gguf.is_gguf(file):
        raise ConfigError(
            f"{where}: is a file, but no GGUF file: give the folder with config.json and weights"
        )
    return file


def _fetched(where: str, repo: str, file: str) -> Path:
    """Download a file from the hub, and return its path on this computer."""
    _require_gguf()  # before gigabytes are fetched
    from transformers.utils import cached_file

    try:
        return Path(str(cached_file(repo, file)))
    except (OSError, ValueError) as error:
        raise ConfigError(f"{where}: cannot be fetched ({reason(error)})") from error


def _require_gguf() -> None:
    if importlib.util.find_spec("gguf") is None:
        raise MissingExtraError("a GGUF file needs the package gguf: pip install 'inf-llm[gguf]'")
