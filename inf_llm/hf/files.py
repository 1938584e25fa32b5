"""Checks of a model's files, before anything is loaded.

Each check returns a reason that ends with advice, or None. transformers itself detects such files
late, and with errors of the library that reads them.
"""

from __future__ import annotations

import json
import zipfile
from pathlib import Path
from typing import Any

POINTER = b"version https://git-lfs"
WEIGHTS = (
    "model.safetensors",
    "model.safetensors.index.json",
    "pytorch_model.bin",
    "pytorch_model.bin.index.json",
)
"""The files in which transformers looks for weights, in this order."""

TOKENIZERS = ("tokenizer.json", "*.model", "*vocab*", "merges.txt", "*.tiktoken", "tekken.json")
_FOREIGN = {
    "adapter_config.json": "holds an adapter (LoRA), not a model: {base}",
    "model_index.json": "holds a diffusers pipeline, not a language model",
    "modules.json": "holds a sentence-transformers model, which gives vectors and not text",
}
_INNER = ("*/config.json", "snapshots/*/config.json")  # the second one in the hub's own cache
_AGAIN = "download it again"
_LONGEST_HEAD = 100_000_000
"""Bytes of JSON that the safetensors library accepts."""


def model_problem(folder: Path) -> str | None:
    """Return why a folder is no model that can be loaded; None if it is one."""
    return (
        _foreign(folder)
        or config_problem(folder / "config.json")
        or _json_problem(folder / "generation_config.json", needed=False)
        or _weights_problem(folder)
    )


def tokenizer_problem(folder: Path) -> str | None:
    """Return why a folder has no tokenizer that can be loaded; None if it has one."""
    found = [file for pattern in TOKENIZERS for file in folder.glob(pattern) if file.is_file()]
    if not found:
        return "has no tokenizer (tokenizer.json or tokenizer.model): copy its files there"
    used = found[:1] if found[0].name == TOKENIZERS[0] else found
    settings = [folder / f"{name}.json" for name in ("tokenizer_config", "special_tokens_map")]
    for file in (*used, *settings):
        wrong = _json_problem(file, False) if file.suffix == ".json" else pointer_problem(file)
        if wrong:
            return wrong
    return None


def config_problem(file: Path) -> str | None:
    """Return why a config.json describes no model; None if it describes one."""
    wrong = _json_problem(file)
    if wrong:
        return wrong
    data = json.loads(file.read_bytes())
    weights = data.get("transformers_weights")
    if not isinstance(weights, str | None):
        return f"{file.name} has transformers_weights = {weights!r:.60}, which names no file"
    if data.get("model_type") and isinstance(data["model_type"], str):
        return None
    return f"{file.name} has no model_type, so nothing says what model it is: {_AGAIN}"


def _foreign(folder: Path) -> str | None:
    """Return why a folder holds no transformers model: other files, or no config.json."""
    for name, what in _FOREIGN.items():
        file = folder / name
        if file.is_file() and not (name == "adapter_config.json" and _weights(folder)):
            return what.format(base=_base(file))
    if (folder / "config.json").is_file():
        return None
    inner = [file.parent for depth in _INNER for file in sorted(folder.glob(depth))]
    where = f": give {str(inner[0])!r}" if inner else ": give a folder with one, and weights"
    return f"has no config.json{where}"


def _base(file: Path) -> str:
    """Return advice for an adapter."""
    wrong = _json_problem(file)
    name = None if wrong else json.loads(file.read_bytes()).get("base_model_name_or_path")
    base = f"its base {name!r}" if name else "its base model"
    return f"merge it into {base} (merge_and_unload, save_pretrained) and give that folder"


def _weights(folder: Path) -> Path | None:
    """Return the weight file, or the index of several weight files."""
    return next((folder / name for name in WEIGHTS if (folder / name).is_file()), None)


def _weights_problem(folder: Path) -> str | None:
    named = json.loads((folder / "config.json").read_bytes()).get("transformers_weights")
    file = folder / named if named and (folder / named).is_file() else _weights(folder)
    if file is None:
        return f"has no weights ({' or '.join(WEIGHTS[::2])}, or their parts with an index)"
    if file.suffix != ".json":
        return _part_problem(file)
    wrong = _json_problem(file)
    if wrong:
        return wrong
    weight_map = json.loads(file.read_bytes()).get("weight_map")
    names = sorted(set(map(str, weight_map.values()))) if isinstance(weight_map, dict) else []
    missing = [name for name in names if not (file.parent / name).is_file()]
    if missing or not names:
        shown = f"{len(missing)} of {len(names)} files are missing, such as {missing[:1]}"
        return f"{file.name}: {shown}: {_AGAIN}"
    return next(filter(None, (_part_problem(file.parent / name) for name in names)), None)


def _part_problem(file: Path) -> str | None:
    wrong = pointer_problem(file)
    if wrong:
        return wrong
    if file.suffix == ".safetensors":
        return _safetensors_problem(file)
    with file.open("rb") as opened:
        if opened.read(2) == b"PK" and not zipfile.is_zipfile(file):
            return f"{file.name} ends too early, so it was not downloaded whole: {_AGAIN}"
    return None


def _safetensors_problem(file: Path) -> str | None:
    """Return why a file is shorter than its header requires.

    The file has 8 bytes with the length of the JSON header, the header, and the tensors.
    """
    size = file.stat().st_size
    try:
        length, rows = safetensors_head(file)
        ends = [int(row["data_offsets"][1]) for row in rows.values()]
    except (ValueError, AttributeError, LookupError, TypeError, RecursionError):
        return f"{file.name} is damaged, or was not downloaded whole: {_AGAIN}"
    needed = 8 + length + max(ends, default=0)
    if size < needed:
        has = f"has {size:,} of {needed:,} bytes"
        return f"{file.name} {has}, so it was not downloaded whole: {_AGAIN}"
    return None


def safetensors_head(file: Path) -> tuple[int, dict[str, Any]]:
    """Return the bytes of a file's header, and dtype, shape and data_offsets of each tensor.

    Raises:
        ValueError, AttributeError, RecursionError: the header is damaged.
    """
    with file.open("rb") as opened:
        length = int.from_bytes(opened.read(8), "little")
        rows = json.loads(opened.read(length) if length <= _LONGEST_HEAD else b"")
    return length, {key: row for key, row in rows.items() if key != "__metadata__"}


def weight_files(folder: Path) -> list[Path]:
    """Return the files with a model's weights; empty if there are none."""
    file = _weights(folder)
    if file is None or file.suffix != ".json":
        return [] if file is None else [file]
    names = json.loads(file.read_bytes())["weight_map"].values()
    return [file.parent / name for name in sorted(set(names))]


def _json_problem(file: Path, needed: bool = True) -> str | None:
    if not needed and not file.is_file():
        return None
    wrong = pointer_problem(file)
    if wrong:
        return wrong
    try:
        value: Any = json.loads(file.read_bytes())
    except (ValueError, RecursionError) as error:
        return f"{file.name} is not JSON ({error}), so it is damaged or not whole: {_AGAIN}"
    return None if isinstance(value, dict) else f"{file.name} must be a JSON object: {_AGAIN}"


def pointer_problem(file: Path) -> str | None:
    """Return why a file is empty, or only a Git LFS pointer that a clone left in its place."""
    with file.open("rb") as opened:
        start = opened.read(len(POINTER))
    if start == POINTER:
        return f"{file.name} is a Git LFS pointer, not the file itself: fetch it with git lfs pull"
    return f"{file.name} is empty: {_AGAIN}" if not start else None
