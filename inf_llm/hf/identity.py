"""The identity of a memory: the content of the model's weights, and all else that keys depend on.

`saving.check_identity` refuses a memory of another identity.

The digest is of the weights that the model computes with, so it changes with further training under
the same name. It is cached while the tensors are unchanged. For weights as loaded from files, it is
cached between processes too, with the sizes and modification times of these files.
"""

from __future__ import annotations

import hashlib
import json
import weakref
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from inf_llm import __version__
from inf_llm.errors import UnsupportedInputError
from inf_llm.hf.decoder import unwrap
from inf_llm.hf.patch import patched
from inf_llm.settings import OriginSettings, to_plain
from inf_llm.user_cache import cached, keep

_LOCAL = ("tier", "pin_memory", "async_global_stream", "fattn", "kernel")
"""Settings of the computation on this machine, which do not affect what a memory holds."""
_PIECE = 64 << 20
_SAMPLE = 64
_KEPT = "weights"  # the section of the user's cache with digests of files
_digests: weakref.WeakKeyDictionary[Any, tuple[Any, str]] = weakref.WeakKeyDictionary()
_files: weakref.WeakKeyDictionary[Any, tuple[Any, str]] = weakref.WeakKeyDictionary()


def model_identity(model: Any) -> dict[str, Any]:
    """Return the fields that a memory of this model depends on, in plain types.

    Raises:
        UnsupportedInputError: the weights are not in memory.
    """
    inner = unwrap(model)
    state = patched(model)
    fields = {
        "library": ".".join(__version__.split(".")[:2]),
        "dtype": str(inner.dtype).removeprefix("torch."),
        "config": _described(inner.config.to_dict()),
        "attention": None if state is None else settings_identity(state.settings),
        "weights": weights_digest(inner),  # last: another field that differs says more
    }
    plain: dict[str, Any] = json.loads(json.dumps(fields, default=str))
    return plain


def settings_identity(settings: OriginSettings) -> dict[str, Any]:
    """Return the settings that affect what a memory holds, in plain types."""
    kept = {key: value for key, value in to_plain(settings).items() if key not in _LOCAL}
    plain: dict[str, Any] = json.loads(json.dumps({"type": settings.type, **kept}))
    return plain


def tokenizer_identity(tokenizer: Any) -> dict[str, str]:
    """Return the fields that token ids, and the layout of a conversation, depend on."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is not None:
        content = backend.to_str()
    else:
        content = json.dumps([sorted(tokenizer.get_vocab().items()), str(tokenizer)])
    template = getattr(tokenizer, "chat_template", None)
    return {"tokenizer": _sha(content), "chat_template": _sha(json.dumps(template))}


def _described(config: Any) -> Any:
    """Return a configuration without the fields for its origin and the way it is run."""
    if not isinstance(config, dict):
        return config
    dropped = ("transformers_version", "dtype", "torch_dtype", "architectures", "name_or_path")
    kept = {k: v for k, v in config.items() if k not in dropped and not str(k).startswith("_")}
    return {key: _described(value) for key, value in kept.items()}


def weights_digest(model: Any) -> str:
    """Return the SHA-256 of a model's parameters and buffers: names, dtypes, shapes and content."""
    tensors = sorted(model.state_dict(keep_vars=True).items())
    marks = _marks(tensors)
    known = _digests.get(model)
    if known is not None and known[0] == marks:
        return known[1]
    origin = _files.get(model)
    key = origin[1] if origin is not None and origin[0] == marks else None
    digest = _remembered(key) or _digest(tensors)
    if key is not None:
        keep(_KEPT, key, digest)
    _digests[model] = marks, digest
    return digest


def note_files(model: Any, files: Sequence[Path]) -> None:
    """Record that a model was just loaded from these files, and that its weights are unchanged."""
    stats = [(str(path.resolve()), path.stat()) for path in sorted(files)]
    entries = [(name, at.st_size, at.st_mtime_ns, at.st_ino) for name, at in stats]
    key = _sha(json.dumps([entries, str(model.dtype), type(model).__name__]))
    _files[model] = _marks(sorted(model.state_dict(keep_vars=True).items())), key


def _marks(tensors: Iterable[tuple[str, Tensor]]) -> Any:
    """Return values that change when a tensor is replaced, or changed in place.

    A write to `.data`, as by optimizers and merged adapters, leaves pointer and version unchanged.
    So the values include a sample of the elements.
    """
    return tuple(
        (name, tensor.data_ptr(), _version(tensor), _sample(tensor)) for name, tensor in tensors
    )


def _version(tensor: Tensor) -> Any:
    return object() if tensor.is_inference() else tensor._version


def _sample(tensor: Tensor) -> bytes:
    if tensor.is_meta:
        return b""
    flat = tensor.detach().reshape(-1)
    return (
        flat[:: max(1, len(flat) // _SAMPLE)].cpu().contiguous().view(torch.uint8).numpy().tobytes()
    )


def _digest(tensors: Sequence[tuple[str, Tensor]]) -> str:
    away = next((name for name, tensor in tensors if tensor.is_meta), None)
    if away is not None:
        raise UnsupportedInputError(
            f"weight {away} is not in memory (offloaded by accelerate), so what a saved memory "
            "belongs to cannot be told: load the model without offloading"
        )
    with ThreadPoolExecutor(max(1, torch.get_num_threads())) as threads:
        parts = list(threads.map(_tensor_digest, [tensor for _, tensor in tensors]))
    rows = [
        (name, str(tensor.dtype), list(tensor.shape), part)
        for (name, tensor), part in zip(tensors, parts, strict=True)
    ]
    return _sha(json.dumps(rows))


def _tensor_digest(tensor: Tensor) -> str:
    digest = hashlib.sha256()
    flat = tensor.detach().contiguous().view(-1).view(torch.uint8)
    for piece in flat.split(_PIECE):
        digest.update(memoryview(piece.cpu().numpy()))
    return digest.hexdigest()


def _sha(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def _remembered(key: str | None) -> str | None:
    digest = None if key is None else cached(_KEPT).get(key)
    return digest if isinstance(digest, str) and len(digest) == 64 else None
