"""Save a cache to a folder, and load it to go on exactly where it stopped.

    inf_llm.save_memory(cache, model, "book")
    cache = inf_llm.load_memory("book", model)

Sealed blocks are written once, and memory-mapped when they are loaded. Windows, sinks, recurrent
states and the tables of device slots are written with every save.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers.cache_utils import Cache, DynamicCache

from inf_llm import __version__
from inf_llm.errors import SavedMemoryError, UnsupportedInputError, reason
from inf_llm.hf.cache import MemoryCache
from inf_llm.hf.cache_layer import MemoryLayer
from inf_llm.hf.decoder import decoder_of, device_of, unwrap
from inf_llm.hf.identity import model_identity
from inf_llm.hf.patch import new_cache, patched
from inf_llm.memory.block_files import StoreReader, StoreWriter
from inf_llm.memory.index_files import absorbed, merged
from inf_llm.saved.folder import Writer, checked, reading, writing
from inf_llm.saved.manifest import Manifest, Segment, differences, plain
from inf_llm.saved.seal import SEAL, broken_seal, seal
from inf_llm.saved.segment import Rows, map_segment
from inf_llm.saved.tree import pack, unpack

Note = Mapping[str, Any]
"""Data in plain types that the caller keeps with a memory."""
TOKENS = "tokens"
"""Name of the token ids in the state segment."""


@dataclass(frozen=True)
class Saved:
    """The content of a folder.

    Attributes:
        cache: the restored cache.
        tokens: the token ids of the text (n,); None if they were not saved.
        manifest: the folder's manifest.
    """

    cache: Cache
    tokens: Tensor | None
    manifest: Manifest


@dataclass(frozen=True)
class Extras:
    """Data that is saved with a cache.

    Attributes:
        tokens: the token ids of its text (n,).
        identity: further fields that must match when the cache is loaded.
        note: data in plain types, for the person who saves.
    """

    tokens: Tensor | None = None
    identity: Mapping[str, Any] = field(default_factory=dict)
    note: Note = field(default_factory=dict)


def save_memory(
    cache: Cache,
    model: Any,
    folder: str | os.PathLike[str],
    *,
    extras: Extras | None = None,
    overwrite: bool = False,
) -> Manifest:
    """Write a cache to a folder, or add to the folder what changed since the last save.

    Args:
        cache: the cache of a patched model, or a plain `DynamicCache`. It may hold a batch.
        model: the model that filled the cache.
        folder: the folder to write. It is made if it does not exist.
        extras: data to save with the cache.
        overwrite: replace another memory that the folder holds.

    Returns:
        The folder's manifest after the save.

    Raises:
        SavedMemoryError: the folder holds another memory or a later state of this one, another
            process is writing to it, or it cannot be written. The folder is left as it was.
        UnsupportedInputError: something in the cache cannot be saved.
    """
    path, extras = Path(folder), extras or Extras()
    _check_cache(cache)
    extras = replace(extras, note=plain("note", extras.note))
    identity = model_identity(model) | plain("identity", extras.identity)
    try:
        with writing(path) as writer:
            goes_on = _goes_on(cache, writer, overwrite)
            before = writer.before if goes_on else None
            with StoreWriter(writer.id, () if before is None else before.stores) as blocks:
                return _write(writer, cache, identity, extras, blocks, before)
    except OSError as error:
        raise SavedMemoryError(f"{path} cannot be written ({reason(error)})") from error


def _check_cache(cache: Any) -> None:
    if not isinstance(cache, MemoryCache) and type(cache) is not DynamicCache:
        raise UnsupportedInputError(
            f"a {type(cache).__name__} cannot be saved: give the cache of a patched model, or a "
            "DynamicCache"
        )


def _goes_on(cache: Any, writer: Writer, overwrite: bool) -> bool:
    """Return whether the cache is a later state of the memory in the folder."""
    before, mine = writer.before, getattr(cache, "saved_as", None)
    if before is None:
        return False
    if mine == (before.id, before.generation):
        return True
    if overwrite:
        writer.start_anew()
        return False
    what = "another memory"
    if mine is not None and mine[0] == before.id:
        what = f"generation {before.generation} of this memory, and this one goes on from {mine[1]}"
    raise SavedMemoryError(
        f"{writer.path} holds {what}: save to another folder, or with overwrite=True to lose what "
        "it holds"
    )


def _write(
    writer: Writer,
    cache: Any,
    identity: Mapping[str, Any],
    extras: Extras,
    blocks: StoreWriter,
    before: Manifest | None,
) -> Manifest:
    tensors: dict[str, Tensor] = {}
    layers = [pack(_dump_layer(layer, blocks), tensors) for layer in cache.layers]
    state = {"layers": layers, "slots": pack(blocks.slots(), tensors)}
    if extras.tokens is not None:
        tensors[TOKENS] = extras.tokens
    kept = [] if before is None else [each for each in before.segments if each.kind != "state"]
    if blocks.has_new:
        kept = _with_new(writer, kept, blocks)
    facts = blocks.facts()
    manifest = Manifest(
        id=writer.id,
        generation=writer.generation,
        identity=identity,
        tokens=int(cache.get_seq_length()) if extras.tokens is None else len(extras.tokens),
        rows=_rows(cache),
        blocks=sum(each["blocks"] for each in facts.values()),
        stores=(dict(before.stores) if before else {}) | facts,  # a store's name is used once
        state=state,
        segments=(),
        library=__version__,
        note=extras.note,
    )
    tensors[SEAL] = seal(manifest)
    kept.append(writer.add("state", {name: Rows.of(each) for name, each in tensors.items()}))
    manifest = replace(manifest, segments=tuple(kept))
    writer.commit(manifest)
    blocks.committed()
    cache.saved_as = writer.id, writer.generation
    return manifest


def _with_new(writer: Writer, kept: list[Segment], blocks: StoreWriter) -> list[Segment]:
    """Add segments of new blocks to a folder's segments; the new index absorbs smaller ones."""
    pages, index = blocks.segments()
    kept = [*kept, writer.add("blocks", pages)]
    new, files = index(), [each for each in kept if each.kind == "index"]
    before = [_mapped(writer.path, each) for each in files]
    count = len(before) - absorbed(before, new)
    with checked(writer.path, files[count:]):
        whole = writer.add("index", merged([*before[count:], new]))
    return [*(each for each in kept if each not in files[count:]), whole]


def _rows(cache: Any) -> int:
    for layer in cache.layers:
        if isinstance(layer, MemoryLayer):
            return layer.rows.count
        if torch.is_tensor(getattr(layer, "keys", None)):
            return int(layer.keys.shape[0])
    return 0


def _dump_layer(layer: Any, blocks: StoreWriter) -> dict[str, Any]:
    if isinstance(layer, MemoryLayer):
        return {"kind": "memory", "dtype": layer.held_dtype, "rows": layer.rows.dump(blocks)}
    return {"kind": type(layer).__name__, "values": dict(vars(layer))}


def load_memory(folder: str | os.PathLike[str], model: Any) -> Cache:
    """Load the cache that `save_memory` wrote, for the same model, patched with the same settings.

    Sealed blocks stay in their files, which are memory-mapped: several processes share their pages.

    Raises:
        SavedMemoryError: the folder holds no memory, or that of another model, or is damaged.
    """
    return open_memory(folder, model).cache


def open_memory(
    folder: str | os.PathLike[str], model: Any, identity: Mapping[str, Any] | None = None
) -> Saved:
    """Load a folder; `identity` has further fields that must match. See `load_memory`."""
    path = Path(folder)
    here = model_identity(model) | dict(identity or {})

    def read(manifest: Manifest) -> Saved:
        check_identity(path, manifest, here)
        return _read(path, manifest, model)

    return reading(path, read)


def check_identity(path: Path, manifest: Manifest, here: Mapping[str, Any]) -> None:
    """Check that a memory belongs to this model, by the fields that both identities have.

    Raises:
        SavedMemoryError: a field differs.
    """
    both = [key for key in here if key in manifest.identity]
    saved = {key: manifest.identity[key] for key in both}
    for name, there, mine in differences(saved, {key: here[key] for key in both}):
        raise SavedMemoryError(
            f"{path} does not belong to this model: {name} is {_shown(there)} there, and "
            f"{_shown(mine)} here: use what it was read with, or read the text into another folder"
        )


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."


def _read(path: Path, manifest: Manifest, model: Any) -> Saved:
    """Load a folder. Blocks are checked when they are read, all other segments here."""
    with checked(path, [each for each in manifest.segments if each.kind != "blocks"]):
        return _opened(path, manifest, model)


def _opened(path: Path, manifest: Manifest, model: Any) -> Saved:
    blocks = {path / each.file: _mapped(path, each) for each in manifest.of_kind("blocks")}
    index = [_mapped(path, each) for each in manifest.of_kind("index")]
    (state,) = (_mapped(path, each) for each in manifest.of_kind("state"))
    broken = broken_seal(path, manifest, state)
    if broken:
        raise SavedMemoryError(broken)
    slots = unpack(manifest.state["slots"], state, torch.device("cpu"))
    cache = _empty(model)
    layers = manifest.state["layers"]
    devices = _devices(model, len(layers))
    if len(layers) != len(cache.layers):
        raise SavedMemoryError(
            f"{path} has {len(layers)} layers, and this model's cache {len(cache.layers)}"
        )
    for layer, packed, device in zip(cache.layers, layers, devices, strict=True):
        files = StoreReader(manifest.id, manifest.stores, blocks, index, slots, device)
        _restore_layer(layer, unpack(packed, state, device), files)
    cache.saved_as = manifest.id, manifest.generation
    tokens = state.get(TOKENS)
    return Saved(cache, None if tokens is None else tokens.clone(), manifest)


def saved_tokens(path: Path, manifest: Manifest) -> Tensor:
    """Return the token ids (n,) of a saved session, without loading its cache.

    Raises:
        SavedMemoryError: the folder holds no token ids, or is damaged.
    """
    (state,) = manifest.of_kind("state")
    with checked(path, [state]):
        tokens = _mapped(path, state).get(TOKENS)
    if tokens is None:
        raise SavedMemoryError(f"{path} holds a cache without its token ids")
    return tokens


def _mapped(path: Path, segment: Segment) -> dict[str, Tensor]:
    return map_segment(path / segment.file, segment.bytes)


def _empty(model: Any) -> Any:
    state = patched(model)
    if state is not None and state.factories:
        return new_cache(model)
    return DynamicCache(config=unwrap(model).config.get_text_config(decoder=True))


def _devices(model: Any, layers: int) -> list[torch.device]:
    """Return the device of each layer."""
    modules = getattr(decoder_of(unwrap(model)), "layers", ())
    first = device_of(model)
    if getattr(unwrap(model), "hf_device_map", None) is None or len(modules) != layers:
        return [first] * layers
    return [next(iter(module.parameters())).device for module in modules]


def _restore_layer(layer: Any, held: Mapping[str, Any], blocks: StoreReader) -> None:
    kind = "memory" if isinstance(layer, MemoryLayer) else type(layer).__name__
    if held["kind"] != kind:
        raise SavedMemoryError(f"a layer is a {held['kind']} in the files, and a {kind} here")
    if isinstance(layer, MemoryLayer):
        layer.restore(held["dtype"], held["rows"], blocks)
    else:
        vars(layer).update(held["values"])
