"""Load the model and the tokenizer of a configuration, and patch the model."""

from __future__ import annotations

import copy
import functools
from pathlib import Path
from typing import Any

import torch
from transformers import (
    CONFIG_MAPPING,
    MODEL_FOR_CAUSAL_LM_MAPPING,
    AutoConfig,
    AutoModelForCausalLM,
    AutoTokenizer,
    PreTrainedConfig,
    PreTrainedModel,
)

from inf_llm.config import RunConfig, load_config
from inf_llm.errors import ConfigError, reason
from inf_llm.hf.dtype import settle_dtype
from inf_llm.hf.gguf import read_head
from inf_llm.hf.gguf_rest import as_numbers, complete_model, complete_tokenizer
from inf_llm.hf.identity import note_files
from inf_llm.hf.llama_infinite import register
from inf_llm.hf.patch import patch, patched, unpatch
from inf_llm.hf.source import DEMO, Source, find
from inf_llm.hf.trial import check_vocabulary, try_out

__all__ = ["DEMO", "load", "load_model", "load_tokenizer"]

_OWN_CODE = {"trust_remote_code": False}
"""Run only code of transformers, none of the checkpoint; without it, transformers asks the user."""


def load(config: RunConfig | str | Path, overrides: list[str] | None = None) -> tuple[Any, Any]:
    """Load, place and patch the model that a configuration names.

    Args:
        config: a configuration, or the path of its YAML file.
        overrides: `key=value` pairs on top of the file.

    Returns:
        The patched model, in evaluation mode, and its tokenizer.

    Raises:
        ConfigError: the model or the configuration does not exist, the model's files are damaged or
            of no language model, or the tokenizer belongs to another model.
        MissingExtraError: the model's files need a package that is not installed.
        UnsupportedModelError: the model cannot be patched.
    """
    if not isinstance(config, RunConfig):
        config = load_config(config, [] if overrides is None else overrides)
    elif overrides:
        raise ConfigError("overrides go on top of a file: give load_config both, or the file here")
    model, tokenizer = load_bare(config)
    return patch(model, config), tokenizer


def load_bare(config: RunConfig) -> tuple[Any, Any]:
    """Load the model, not patched, and its tokenizer; see `load`."""
    find("path", config.model.path, "model")  # report an adapter, and not its missing tokenizer
    tokenizer = load_tokenizer(config)  # before the weights, which take longer
    model = load_model(config)
    check_vocabulary(model, tokenizer, config)
    return model, tokenizer


def load_tokenizer(config: RunConfig) -> Any:
    """Load the tokenizer that a configuration names, by default the model's own.

    Raises:
        ConfigError: there is none, or its files are damaged.
    """
    key = "path" if config.model.tokenizer_path is None else "tokenizer_path"
    source = find(key, getattr(config.model, key), "tokenizer")
    tokenizer = _from_pretrained(AutoTokenizer, source, "tokenizer")
    if source.gguf is not None:
        try:
            complete_tokenizer(tokenizer, source.gguf)
        except ValueError as error:
            raise _failure(source, "tokenizer", error) from error
    return tokenizer


def load_model(config: RunConfig) -> PreTrainedModel:
    """Load the model, not patched, on the device that it will run on.

    Raises:
        ConfigError: there is none, or its files are damaged or of no language model.
    """
    register()  # so that a saved LlamaInfinite loads
    source = find("path", config.model.path, "model")
    options: dict[str, Any] = {"dtype": config.model.dtype}
    if config.model.device_map is not None:
        options["device_map"] = config.model.device_map
    model = _placed(_weights(source, described(source), options), source, config)
    if patched(model) is not None:  # it patched itself; the configuration decides
        unpatch(model)
    model.eval()
    if config.model.dtype == "auto":
        settle_dtype(model)
    try_out(model, source.where)
    if source.weight_files:
        note_files(model, source.weight_files)
    return model


def described(source: Source) -> PreTrainedConfig:
    """Return the configuration of a model that generates text, without its weights.

    Raises:
        ConfigError: there is none, or it is of another kind of model.
    """
    if source.gguf is None:
        return _described(source)
    return copy.deepcopy(_described_once(source, source.gguf.stat().st_mtime_ns))


@functools.lru_cache(maxsize=1)
def _described_once(source: Source, changed: int) -> PreTrainedConfig:
    """Return the configuration of a GGUF file, cached: transformers takes up to half a minute."""
    return _described(source)


def _described(source: Source) -> PreTrainedConfig:
    if source.gguf is None:
        _check_kind(source)
    config = _from_pretrained(AutoConfig, source, "model")
    if config.is_encoder_decoder or type(config) not in MODEL_FOR_CAUSAL_LM_MAPPING:
        raise ConfigError(
            f"{source.where}: transformers has no AutoModelForCausalLM of type "
            f"{config.model_type!r}, so it cannot generate text here; give a decoder"
        )
    window = read_head(source.gguf).own("attention.sliding_window") if source.gguf else None
    if window is not None and hasattr(config, "sliding_window"):
        config.sliding_window = window  # transformers reads it for some architectures only
    return config


def _check_kind(source: Source) -> None:
    """Check that transformers itself has the code of a model."""
    try:
        data, _ = PreTrainedConfig.get_config_dict(source.name)
    except Exception as error:
        raise _failure(source, "model", error) from error
    kind = data.get("model_type")
    if kind in CONFIG_MAPPING:
        return
    needs = (
        "brings Python code of its own, which is not run here (no trust_remote_code): give a model "
        "whose code is part of transformers"
        if "auto_map" in data
        else "is not known to this version of transformers: a newer one may know it"
    )
    raise ConfigError(f"{source.where}: a model of type {kind!r} {needs}")


def _weights(source: Source, config: PreTrainedConfig, options: dict[str, Any]) -> PreTrainedModel:
    """Load the model, and check that the files have all its weights.

    transformers gives random numbers to weights that are missing or of another shape.
    """
    model, report = _from_pretrained(
        AutoModelForCausalLM,
        source,
        "model",
        config=config,
        output_loading_info=True,
        ignore_mismatched_sizes=True,
        **(as_numbers() if source.gguf is not None else {}),
        **options,
    )
    for key, what in (("missing_keys", "missing"), ("mismatched_keys", "of another shape")):
        names = sorted(row if isinstance(row, str) else row[0] for row in report[key])
        if names:
            raise ConfigError(
                f"{source.where}: weights of {type(model).__name__} are {what}: {names[0]}"
                f"{f' and {len(names) - 1} more' if len(names) > 1 else ''}; download it again, or "
                "give a model that was saved for generating text"
            )
    if source.gguf is not None:
        complete_model(model, source.gguf)
        model.config.name_or_path = str(source.gguf)
    return model


def _placed(model: Any, source: Source, config: RunConfig) -> Any:
    if config.model.device_map is not None or not torch.cuda.is_available():
        return model
    try:
        return model.cuda()
    except RuntimeError as error:
        raise _failure(source, "model", error) from error


def _from_pretrained(factory: Any, source: Source, what: str, **options: Any) -> Any:
    """Call transformers' `from_pretrained`, and turn its errors into a ConfigError of one line."""
    try:
        with source.arguments() as (name, keywords):
            return factory.from_pretrained(name, **keywords, **_OWN_CODE, **options)
    except Exception as error:  # libraries that transformers loads with have errors of their own
        raise _failure(source, what, error) from error


def _failure(source: Source, what: str, error: Exception) -> ConfigError:
    if isinstance(error, AssertionError | RuntimeError):  # torch's errors for a device
        return ConfigError(f"{source.where}: cannot place the {what} ({reason(error)})")
    hint = f"; {source.hint}" if isinstance(error, OSError) or not source.local else ""
    return ConfigError(f"{source.where}: cannot load the {what} ({reason(error)}){hint}")
