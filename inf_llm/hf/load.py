"""From a configuration to a patched model and its tokenizer."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel

from inf_llm.config import RunConfig, load_config
from inf_llm.errors import ConfigError
from inf_llm.hf.dtype import settle_dtype
from inf_llm.hf.llama_infinite import register
from inf_llm.hf.patch import patch, patched, unpatch

DEMO = Path(__file__).parent.parent / "assets" / "demo"


def resolve_path(path: str) -> str:
    """A model's folder or hub name; `demo` is the small model that comes with the package."""
    if path == "demo":
        return str(DEMO)
    return str(Path(path).expanduser()) if Path(path).expanduser().exists() else path


def load(config: RunConfig | str | Path, overrides: list[str] | None = None) -> tuple[Any, Any]:
    """Load, place and patch the model that a configuration names.

    Args:
        config: a configuration, or the path of its YAML file.
        overrides: `key=value` pairs on top of the file.

    Returns:
        The patched model, in evaluation mode, and its tokenizer.

    Raises:
        ConfigError: there is no such model, or no such configuration.
        UnsupportedModelError: the model cannot be patched.
    """
    if not isinstance(config, RunConfig):
        config = load_config(config, overrides or [])
    model = load_model(config)
    return patch(model, config), load_tokenizer(config)


def load_tokenizer(config: RunConfig) -> Any:
    """The tokenizer that a configuration names, its model's own by default.

    Raises:
        ConfigError: there is none.
    """
    source = config.model
    if source.tokenizer_path is None:
        return _from_pretrained(AutoTokenizer, "path", source.path, "tokenizer")
    return _from_pretrained(AutoTokenizer, "tokenizer_path", source.tokenizer_path, "tokenizer")


def load_model(config: RunConfig) -> PreTrainedModel:
    """The model as it is, not patched, on the device it will run on."""
    source = config.model
    register()  # a saved LlamaInfinite is one of the models that can be named
    options: dict[str, Any] = {"dtype": source.dtype}
    if source.device_map is not None:
        options["device_map"] = source.device_map
    model = _from_pretrained(AutoModelForCausalLM, "path", source.path, "model", **options)
    if source.device_map is None and torch.cuda.is_available():
        model = model.cuda()
    if patched(model) is not None:  # it brings an attention of its own; the configuration decides
        unpatch(model)
    model.eval()
    return settle_dtype(model) if source.dtype == "auto" else model


def _from_pretrained(factory: Any, key: str, path: str, what: str, **options: Any) -> Any:
    """transformers' own loading, with its many errors told as one line."""
    where = f"model.{key} = {path!r}"
    if _looks_local(path) and not Path(resolve_path(path)).is_dir():
        raise ConfigError(
            f"{where}: there is no such folder; give one with config.json and weights, "
            "a hub name, or 'demo'"
        )
    try:
        return factory.from_pretrained(resolve_path(path), **options)
    except (AssertionError, RuntimeError) as error:  # as torch answers for a device
        raise ConfigError(f"{where}: cannot place the {what} ({_reason(error)})") from error
    except (OSError, ValueError, KeyError, ImportError) as error:
        hint = (
            "give a folder with config.json and weights"
            if _looks_local(path)
            else "give a local folder, or a hub name while the hub can be reached"
        )
        raise ConfigError(f"{where}: cannot load the {what} ({_reason(error)}); {hint}") from error


def _reason(error: Exception) -> str:
    """The first line of what an error says."""
    told = str(error).strip()
    return told.splitlines()[0] if told else type(error).__name__


def _looks_local(path: str) -> bool:
    """Whether a path means a folder: hub names are `name` or `owner/name`."""
    return path == "demo" or path.startswith((".", "/", "~")) or path.count("/") > 1
