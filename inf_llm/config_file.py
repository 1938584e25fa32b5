"""Reading of YAML files and `key=value` overrides into OmegaConf, with messages for all errors.

This module does not depend on the settings; `config` defines the keys and their values.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable
from itertools import product
from pathlib import Path

import yaml
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from inf_llm.errors import ConfigError, reason
from inf_llm.registry import accepted

SHIPPED_CONFIGS = Path(__file__).parent / "assets" / "config"
"""The copy of the repository's folder `config/` in the package."""
SUFFIXES = (".yaml", ".yml")
_OWN = "-inf-llm"  # the ending of a name that may be omitted
MAX_BYTES = 1 << 20
"""Size limit of a file, so that a checkpoint given by mistake is not read into memory."""

_OVERRIDE = re.compile(r"(?P<key>[A-Za-z_]\w*(\.[A-Za-z_]\w*)*)=(?P<value>.*)", re.DOTALL)
_OCTAL = re.compile(r"[-+]?0[0-9_]+")
_SIXTIES = re.compile(r"[-+]?\d[\d_]*(:[0-5]?\d)+(\.\d*)?")
_NEEDED = "but a mapping (model: ...) is needed"
_HOW = "write it as key=value, for example model.topk=16"


def read_mapping(path: str | Path) -> tuple[Path, DictConfig]:
    """Find and read the file for `path`; return the file and its mapping.

    Raises:
        ConfigError: the file does not exist, cannot be read, or is not a YAML mapping.
    """
    file = _find(path)
    text = _text(file)
    try:
        content = OmegaConf.create(text)
    except yaml.YAMLError as error:
        raise ConfigError(f"{file}: not readable as YAML: {yaml_problem(error)}") from None
    except AssertionError:  # OmegaConf raises this for a single number
        raise ConfigError(f"{file}: holds a single value, {_NEEDED}") from None
    except (OmegaConfBaseException, ValueError, RecursionError) as error:
        raise ConfigError(f"{file}: not a mapping of settings: {reason(error)}") from None
    if odd := _odd_number(text):
        raise ConfigError(f"{file}: {odd}")
    if not isinstance(content, DictConfig):
        raise ConfigError(f"{file}: holds a list, {_NEEDED}")
    if len(content) == 0:
        raise ConfigError(f"{file}: is empty, {_NEEDED}")
    return file, content


def shipped() -> dict[str, Path]:
    """The configurations that come with the package, by name."""
    return {file.stem: file for file in sorted(SHIPPED_CONFIGS.glob("*.yaml"))}


def _find(path: str | Path) -> Path:
    """Find the file of a path or a name: `demo-inf-llm`, or shorter `demo`, with or without .yaml.

    A name is searched for in the folder `config` of the working directory, then in the package.
    """
    file = Path(path)
    try:
        if file.is_file():
            return file
        if file.parent in (Path(), Path("config")):
            stem = file.name.removesuffix(".yaml")
            for folder, name in product((Path("config"), SHIPPED_CONFIGS), (stem, f"{stem}{_OWN}")):
                if (found := folder / f"{name}.yaml").is_file():
                    return found
        problem = _why_not(file)
    except (OSError, ValueError) as error:  # a name is too long, or a folder is not readable
        shown = repr(str(path)) if len(str(path)) < 100 else f"{str(path)[:100]!r}..."
        problem = f"{shown} cannot be opened: {getattr(error, 'strerror', None) or error}"
    raise ConfigError(problem)


def _why_not(file: Path) -> str:
    if file.exists():
        kind = "a folder" if file.is_dir() else "not a regular file"
        return f"{file}: is {kind}, but a YAML file is needed"
    known = [str(other) for other in file.parent.glob("*") if other.suffix in SUFFIXES]
    names = {spelling for name in shipped() for spelling in (name, name.removesuffix(_OWN))}
    close = difflib.get_close_matches(str(file), [*known, *sorted(names)], n=3)
    hint = f"did you mean {', '.join(map(repr, close))}? " if close else ""
    return (
        f"{str(file)!r}: there is no such file or configuration; {hint}inf-llm configs lists names"
    )


def _text(file: Path) -> str:
    try:
        if file.stat().st_size > MAX_BYTES:
            raise ConfigError(f"{file}: is more than 1 MiB, which no configuration is")
        return file.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError:
        raise ConfigError(f"{file}: is not text (UTF-8); a YAML file is needed") from None
    except OSError as error:
        raise ConfigError(f"{file}: cannot be read: {error.strerror}") from None


def read_override(text: str, known: Iterable[str]) -> tuple[str, DictConfig]:
    """Read an override; return its dotted key and a mapping to merge.

    Raises:
        ConfigError: the text is not `key=value`, the key is not in `known`, or the value is not
            valid YAML.
    """
    match = _OVERRIDE.fullmatch(text)
    if match is None:
        raise ConfigError(f"override {text!r} is not a setting: {_HOW}")
    key, known = match["key"], sorted(known)
    if not match["value"].strip():
        raise ConfigError(f"override {text!r} has no value after '=': {_HOW}")
    if key not in known:
        raise ConfigError(f"override {text!r}: {key} is not a setting; {accepted(key, known)}")
    try:
        layer, odd = OmegaConf.from_dotlist([text]), _odd_number(match["value"])
    except yaml.YAMLError as error:
        odd = f"the value is not readable as YAML: {yaml_problem(error)}"
    except (OmegaConfBaseException, AssertionError, ValueError, RecursionError) as error:
        odd = f"the value is not readable as YAML: {reason(error)}"
    if odd:
        raise ConfigError(f"override {text!r}: {odd}")
    return key, layer


def _odd_number(text: str) -> str | None:
    """A message about the first number that YAML 1.1 reads as another number; None for none."""
    for event in yaml.parse(text, yaml.SafeLoader):
        if isinstance(event, yaml.ScalarEvent) and event.implicit[0]:
            if _OCTAL.fullmatch(event.value):
                return f"{event.value} is an octal number to YAML: write it without the leading 0"
            if _SIXTIES.fullmatch(event.value):
                return f"{event.value} is a number to the base 60 to YAML: write it in full"
    return None


def yaml_problem(error: yaml.YAMLError) -> str:
    """The problem and its line number, as one line of text."""
    problem = getattr(error, "problem", None) or reason(error)
    mark = getattr(error, "problem_mark", None)
    return f"line {mark.line + 1}: {problem}" if mark else problem
