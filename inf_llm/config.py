"""The configuration of a run: one typed YAML file, checked as a whole before a model is loaded.

    model:                 # the model, and the settings of its attention type
      type: inf-llm
      path: mistralai/Mistral-7B-Instruct-v0.2
      n_local: 4096
    max_len: 2147483647    # the prompt: its length and its chunks
    chunk_size: 8192

`load_config` reads the file with OmegaConf, so values may be interpolated
(`${oc.env:MODELS}/mistral`) and overridden (`model.topk=32`). Every error is a `ConfigError` with a
message of one line: the file or the override, the key, the rule and the nearest valid name.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, make_dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from omegaconf import MISSING, DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from inf_llm.checks import (
    LARGEST,
    FieldTypes,
    at_least,
    field_types,
    mismatch,
    one_of,
    require,
    typed,
)
from inf_llm.choice import Choice
from inf_llm.config_file import SHIPPED_CONFIGS as SHIPPED_CONFIGS
from inf_llm.config_file import read_mapping, read_override, shipped
from inf_llm.conversation import CONV_TYPES
from inf_llm.errors import ConfigError, SettingsError, reason
from inf_llm.published import published_keys, translated
from inf_llm.registry import accepted, nearest
from inf_llm.settings import (
    InfLLMSettings,
    OriginSettings,
    key_problem,
    key_types,
    settings_class,
    to_plain,
)
from inf_llm.truncation import TRUNCATIONS
from inf_llm.variants import ATTENTION

DTYPES = ("auto", "float32", "float16", "bfloat16")
WEIGHTS = ("int8",)
ANY_MODEL = "default"
"""Name of the configuration in the package that is not made for one model."""


@dataclass(frozen=True)
class ModelConfig:
    """The model, its number format and its device.

    Attributes:
        path: a folder, a GGUF file, a hub id, "owner/name:FILE.gguf" on the hub, or "demo" for the
            small model that comes with the package.
        tokenizer_path: path of the tokenizer; None for the path of the model.
        dtype: number format of the weights and of the computation; "auto" takes the format of the
            checkpoint, and on a CPU the fastest format that represents its weights without loss
            (`inf_llm.hf.dtype`).
        device_map: as in `transformers` ("auto", "cpu", "cuda:0"); None takes the GPU if there is
            one.
        weights: "int8" keeps a second copy of the weights of linear layers in 8 bits. A CPU uses
            this copy to decode up to 16 answers at once, one token of each per step; prompts are
            read with the original weights.
    """

    path: str
    tokenizer_path: str | None = None
    dtype: str = "auto"
    device_map: str | None = None
    weights: str | None = None

    def __post_init__(self) -> None:
        typed(self)
        if self.weights is not None:
            one_of(self, "weights", WEIGHTS)
        require(self.path.strip() != "", "path", "path = '' is empty: a folder or hub id is needed")
        one_of(self, "dtype", DTYPES)


@dataclass(frozen=True)
class RunConfig:
    """A complete, checked configuration.

    Attributes:
        model: the model.
        attention: the settings object of the attention type.
        max_len: largest number of tokens of a prompt and its answer together.
        truncation: the rule for a prompt that is longer: None refuses the prompt, "suffix" keeps
            its first tokens and its end, "middle" keeps the first and the last half of the
            tokens allowed.
        chunk_size: tokens of a prompt in one forward pass.
        conv_type: layout of messages; None for the tokenizer's own chat template.
        control_tokens: whether control tokens that are written in a text or a message, for example
            "<|im_end|>", count as control tokens; if false, they are ordinary text.
        source: the file of the configuration.
        left_out: keys of the file that have no effect because an override changed model.type.
    """

    model: ModelConfig
    attention: OriginSettings
    max_len: int = LARGEST
    truncation: str | None = None
    chunk_size: int = 8192
    conv_type: str | None = None
    control_tokens: bool = False
    source: str | None = field(default=None, compare=False)
    left_out: tuple[str, ...] = field(default=(), compare=False)

    def __post_init__(self) -> None:
        typed(self)
        at_least(self, 1, "max_len", "chunk_size")
        if self.truncation is not None:
            one_of(self, "truncation", TRUNCATIONS)
        if self.conv_type is not None:
            one_of(self, "conv_type", CONV_TYPES)
        if isinstance(self.attention, InfLLMSettings):
            block = self.attention.exc_block_size
            require(
                self.chunk_size >= block,
                "chunk_size",
                f"chunk_size = {self.chunk_size} is less than model.exc_block_size = {block}, but "
                "a chunk is fed in whole execution blocks: raise chunk_size or lower the other",
            )

    def to_dict(self) -> dict[str, Any]:
        """Return the content of a file that gives the same configuration, in plain types."""
        model = {"type": self.attention.type, **dataclasses.asdict(self.model)}
        top = {key: getattr(self, key) for key in _TOP_KEYS}
        return {"model": model | to_plain(self.attention), **top}


_TOP_KEYS = ("max_len", "truncation", "chunk_size", "conv_type", "control_tokens")
_MODEL_KEYS = ("type", *field_types(ModelConfig))
_T = TypeVar("_T")


def _all_keys() -> tuple[str, ...]:
    """Every dotted key that a file of any attention type may have."""
    keys = (_MODEL_KEYS, *(key_types(settings_class(name)) for name in ATTENTION))
    inside = dict.fromkeys(f"model.{key}" for some in keys for key in some)
    return ("model", *_TOP_KEYS, *inside)


def suited(model: str) -> str:
    """Name of the shipped inf-llm configuration for a model; otherwise of the one for any model."""
    for name, file in shipped().items():
        section = read_mapping(file)[1]["model"]
        if (section["type"], section.get("path")) == (InfLLMSettings.type, model):
            return name
    return ANY_MODEL


def load_config(
    path: str | Path, overrides: Sequence[str] = (), *, model: str | None = None
) -> RunConfig:
    """Read, merge and check a configuration.

    Args:
        path: a YAML file, or the name of one that comes with the package: "demo-inf-llm", "demo".
        overrides: `key=value` texts with dotted keys of the file: ``["model.topk=32"]``.
        model: replaces model.path of the file, and drops its model.tokenizer_path.

    Raises:
        ConfigError: the file, a key, a value, an override or their combination is not valid.
    """
    if not isinstance(path, str | Path):
        raise ConfigError(f"a configuration is the path of its YAML file, not {path!r:.60}")
    listed = isinstance(overrides, list | tuple)
    if not listed or not all(isinstance(text, str) for text in overrides):
        raise ConfigError(
            f"overrides = {overrides!r:.60} is no list of key=value texts, as ['model.topk=32'] is"
        )
    file, given = read_mapping(path)
    return _config(str(file), given, overrides, model)


def config_from(data: Mapping[str, Any], source: str, overrides: Sequence[str] = ()) -> RunConfig:
    """Make a configuration from the result of `RunConfig.to_dict`, and apply overrides.

    Args:
        data: the result of `RunConfig.to_dict`.
        source: the place where it was stored, for error messages.
        overrides: as for `load_config`.

    Raises:
        ConfigError: as for `load_config`.
    """
    return _config(source, OmegaConf.create(dict(data)), overrides, None)


def _config(
    source: str, given: DictConfig, overrides: Sequence[str], model: str | None
) -> RunConfig:
    layers, overridden = [given], {}
    for text in overrides:
        key, layer = read_override(text, _all_keys()[1:])  # without `model`, which is a mapping
        layers.append(layer)
        overridden[key] = text
    return _Reading(source, overridden, model).config(layers)


@dataclass
class _Reading:
    """One reading of a file. It records which override set a key, so that errors can name it."""

    file: str
    overridden: dict[str, str]  # dotted key -> the text of the override that set it
    model: str | None  # replaces model.path of the file

    def config(self, layers: list[DictConfig]) -> RunConfig:
        """Check and merge the layers: the file, then the overrides."""
        self._check_keys(layers[0])
        self._make_way(layers[0])
        merged = self._guard("", lambda: DictConfig(OmegaConf.merge(*layers)))
        left_out = self._drop_foreign(merged)
        self._check_keys(merged)
        return self._build(merged, left_out)

    def _error(self, key: str, message: str) -> ConfigError:
        """An error about a dotted key, which names the override or the file that gave the key."""
        where = f"override {self.overridden[key]!r}" if key in self.overridden else self.file
        return ConfigError(f"{where}: {message}")

    def _guard(self, key: str, action: Callable[[], _T]) -> _T:
        """Return the result of `action`, and turn an error of OmegaConf into one about `key`."""
        try:
            return action()
        except (OmegaConfBaseException, ValueError, RecursionError) as error:
            key = key or getattr(error, "full_key", None) or "the file"
            raise self._error(key, f"{key} cannot be resolved: {reason(error)}") from None

    def _check_keys(self, given: DictConfig) -> None:
        for key in map(str, given):
            if key not in ("model", *_TOP_KEYS):
                hint = nearest(key, _all_keys()) or accepted(key, ("model", *_TOP_KEYS))
                raise self._error(key, f"{key} is not a setting; {hint.strip()}")
        if not isinstance(self._guard("model", lambda: given.get("model")), DictConfig):
            raise self._error("model", "model must be a mapping with type, path and settings")
        cls = self._settings_class(given)
        for key in map(str, given.model):
            problem = key_problem(key, cls, also=_MODEL_KEYS)
            if key in _TOP_KEYS:
                problem = f"{key} stands beside model, not in it: write it without indentation"
            if problem:
                raise self._error(f"model.{key}", f"model.{problem}")

    def _settings_class(self, given: DictConfig) -> type[OriginSettings]:
        name = self._guard("model.type", lambda: given.model.get("type"))
        if name is None:
            raise self._error("model.type", f"model.type is missing; {accepted('', ATTENTION)}")
        try:
            return settings_class(name)
        except SettingsError as error:
            raise self._error("model.type", f"model.{error}") from None

    def _make_way(self, given: DictConfig) -> None:
        """Remove the keys that overrides replace, and published keys that set a part of these."""
        for key in (key.removeprefix("model.") for key in self.overridden):
            for old in (key, *published_keys([key])):
                given.model.pop(old, None)

    def _drop_foreign(self, merged: DictConfig) -> tuple[str, ...]:
        """Remove and return the file's keys that the type, after an override, does not have."""
        known = {*_MODEL_KEYS, *key_types(self._settings_class(merged))}
        foreign = [key for key in map(str, merged.model) if key not in known]
        foreign = [key for key in foreign if f"model.{key}" not in self.overridden]
        for key in foreign:
            del merged.model[key]
        return tuple(f"model.{key}" for key in foreign)

    def _build(self, merged: DictConfig, left_out: tuple[str, ...]) -> RunConfig:
        cls = self._settings_class(merged)
        model_types, settings = field_types(ModelConfig), key_types(cls)
        given = self._values(merged.model, {**model_types, **settings}, "model.")
        top = self._values(merged, {key: field_types(RunConfig)[key] for key in _TOP_KEYS}, "")
        if self.model is not None:
            tokenizer = (
                given.get("tokenizer_path") if "model.tokenizer_path" in self.overridden else None
            )
            given |= {"path": self.model, "tokenizer_path": tokenizer}
        if "path" not in given:
            raise self._error("model.path", "model.path is missing: a folder, a hub id or 'demo'")
        top["model"] = self._make(
            "model.", ModelConfig, {k: given[k] for k in given if k in model_types}
        )
        values = {key: given[key] for key in given if key in settings}
        top["attention"] = self._make("model.", lambda **values: cls(**translated(values)), values)
        return self._make("", RunConfig, {**top, "source": self.file, "left_out": left_out})

    def _make(self, prefix: str, make: Callable[..., _T], values: dict[str, Any]) -> _T:
        try:
            return make(**values)
        except SettingsError as error:
            where = prefix if error.key else ""  # without a key, the message names no setting
            raise self._error(f"{prefix}{error.key}", f"{where}{error}") from None

    def _values(self, given: DictConfig, kinds: FieldTypes, prefix: str) -> dict[str, Any]:
        """Convert the given values of the keys in `kinds` with a typed OmegaConf schema.

        The schema converts an interpolated text (`${oc.env:N_LOCAL}`) to the declared type. The
        schema would also convert literals, "16" to 16 or 1 to true; literals must have the declared
        type.
        """
        values = {}
        for key in (key for key in map(str, given) if key in kinds):
            name, optional, kind = prefix + key, *kinds[key]
            value = self._guard(name, partial(given.__getitem__, key))
            if kind is Choice:
                values[key] = self._guard(name, partial(_plain, value))
                continue
            if not OmegaConf.is_interpolation(given, key):
                problem = mismatch(key, value, optional, kind)
                if problem:
                    raise self._error(name, prefix + problem)
            schema = make_dataclass("schema", [(key, kind | None if optional else kind, MISSING)])
            values[key] = self._guard(name, partial(_converted, schema, key, value))
        return values


def _plain(value: Any) -> Any:
    """A value in plain types, with all interpolations resolved."""
    if isinstance(value, DictConfig):
        return OmegaConf.to_container(value, resolve=True, throw_on_missing=True)
    return value


def _converted(schema: type, key: str, value: Any) -> Any:
    return getattr(OmegaConf.merge(schema, {key: value}), key)
