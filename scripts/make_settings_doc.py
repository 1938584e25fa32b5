"""Write docs/settings.md from the dataclasses of the settings, so that it always matches them.

python scripts/make_settings_doc.py            # writes it
python scripts/make_settings_doc.py --check    # exit code 1 if it would change
"""

from __future__ import annotations

import argparse
import dataclasses
import inspect
import re
import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

if __package__ in (None, ""):  # run as a file, from any folder
    sys.path[0] = str(Path(__file__).resolve().parent.parent)

from inf_llm.choice import Choice
from inf_llm.config import ModelConfig, RunConfig
from inf_llm.published import published_keys
from inf_llm.registry import Registry
from inf_llm.settings import settings_class
from inf_llm.variants import ATTENTION, KERNEL

FILE = Path(__file__).resolve().parent.parent / "docs" / "settings.md"
NOT_IN_A_FILE = ("model", "attention", "source", "left_out")  # set by the code that loads a file

HEAD = """\
# Settings

`python scripts/make_settings_doc.py` makes this page from the dataclasses in `inf_llm/config.py`,
`inf_llm/settings.py` and `inf_llm/options.py`; a test fails where it differs from them.

A configuration is a YAML file: `model:` holds the model and the settings of one attention type, the
other keys stand beside it. YAML files written for the published InfLLM work unchanged. A key that
the type does not use is refused, with the nearest valid name. On the command line `KEY=VALUE`
changes a value (`model.topk=32`, `chunk_size=4096`); `inf_llm.patch` takes the type and its
settings as keywords.

```yaml
model:
  type: inf-llm
  path: HuggingFaceTB/SmolLM2-135M-Instruct
  n_local: 512
  exc_block_size: 256
  eviction: {name: lru-s, decay: 0.2}
chunk_size: 8192
```
"""

PUBLISHED = """\
Published files give options of a choice as keys of their own, which stay valid:
`cache_strategy: lru-s` with `score_decay: 0.2` is `eviction: {name: lru-s, decay: 0.2}`,
`faiss: true` is `index: faiss`, `perhead: true` is `selection: query-head`, `repr_topk: 8` is
`summary: {name: most-attended, tokens: 8}`, and `scaling: linear` with `scaling_factor: 4.0` is
`scaling: {name: linear, factor: 4.0}`. An option that is given twice is refused.
"""


def main(arguments: list[str] | None = None) -> int:
    """Write the page, or compare it with the file; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--check", action="store_true", help="compare, and write nothing")
    args = parser.parse_args(arguments)
    text = page()
    if not args.check:
        FILE.write_text(text, encoding="utf-8")
        return 0
    if FILE.exists() and FILE.read_text(encoding="utf-8") == text:
        return 0
    print(f"{FILE} is not up to date: run python scripts/make_settings_doc.py", file=sys.stderr)
    return 1


def page() -> str:
    """Return the whole page."""
    classes = [settings_class(name) for name in ATTENTION.own]
    choices = {key: row for cls in classes for key, row in cls.choices.items()}
    parts = [
        HEAD,
        "## Beside `model:`",
        table(RunConfig, leave_out=NOT_IN_A_FILE),
        "## Under `model:`",
        f"`type` is {_names(ATTENTION.own, 'or')}. The model:",
        table(ModelConfig),
        *_types(),
        "## Choices and their options",
        "A choice is a name, `eviction: lru`, or a name with options, "
        "`eviction: {name: lru-s, decay: 0.2}`. [extending.md](extending.md) shows how to add one.",
        *(_choice(key, registry) for key, registry in choices.items()),
        f"`kernel` is {_names(('auto', *KERNEL.own), 'or')}, without options.",
        "## Published keys",
        PUBLISHED,
        _rows(
            ("choice", "its parts"),
            (
                (f"`{key}`", _names(parts, "and"))
                for key in choices
                if (parts := published_keys([key]))
            ),
        ),
    ]
    return "\n\n".join(part.strip() for part in parts) + "\n"


def _types() -> Iterator[str]:
    """Yield the settings of every type; a field appears once, with all types that have it."""
    classes = [settings_class(name) for name in ATTENTION.own]
    shown: set[type] = set()
    for cls in classes:
        for base in (base for base in reversed(cls.__mro__) if dataclasses.is_dataclass(base)):
            keys = [key for key in inspect.get_annotations(base) if key in _fields(base)]
            if keys and base not in shown:
                users = [user.type for user in classes if issubclass(user, base)]
                yield f"### Settings of {_names(users, 'and')}"
                yield table(base, only=keys)
            shown.add(base)


def _choice(key: str, registry: Registry) -> str:
    """Return the section of a choice: the names in its registry, with their options."""
    rows = []
    for name in registry.own:
        options = registry.options(name)
        meanings = {} if options is None else attributes(options)
        fields = () if options is None else dataclasses.fields(options)
        lines = [f"`{field.name}` ({_default(field)}): {meanings[field.name]}" for field in fields]
        rows.append((f"`{name}`", "; ".join(lines) or "none"))
    return f"### `{key}`\n\n" + _rows(("name", "options, their defaults and meaning"), rows)


def table(cls: Any, only: Iterable[str] | None = None, leave_out: Iterable[str] = ()) -> str:
    """Return a table of the fields of a dataclass: key, default, meaning."""
    meanings = attributes(cls)
    keys = [key for key in (_fields(cls) if only is None else only) if key not in {*leave_out}]
    fields = {field.name: field for field in dataclasses.fields(cls)}
    return _rows(
        ("key", "default", "meaning"),
        ((f"`{key}`", _default(fields[key]), meanings[key]) for key in keys),
    )


def attributes(cls: Any) -> dict[str, str]:
    """Return the meaning of each field, from the docstrings of a dataclass and its bases."""
    meanings: dict[str, str] = {}
    for base in reversed(cls.__mro__):
        if not dataclasses.is_dataclass(base):
            continue
        section = inspect.cleandoc(base.__doc__ or "").partition("Attributes:\n")[2]
        for key, meaning in re.findall(r"^    (\w+): (.*(?:\n {8}.*)*)", section, re.MULTILINE):
            words = " ".join(meaning.split()).removesuffix(".")
            meanings[key] = re.sub(r"\bNone\b", "null", words)
    return meanings


def _fields(cls: Any) -> list[str]:
    return [field.name for field in dataclasses.fields(cls)]


def _default(field: dataclasses.Field[Any]) -> str:
    return "needed" if field.default is dataclasses.MISSING else _shown(field.default)


def _shown(value: Any) -> str:
    """Return a value as YAML writes it."""
    if isinstance(value, Choice):
        value = value.plain()
    if value is None:
        return "null"
    return f"`{str(value).lower() if isinstance(value, bool) else value}`"


def _names(names: Iterable[str], last: str) -> str:
    *some, final = [f"`{name}`" for name in names]
    return f"{', '.join(some)} {last} {final}" if some else final


def _rows(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [head, ("---",) * len(head), *rows]
    cells = ([cell.replace("|", r"\|") for cell in line] for line in lines)
    return "\n".join(f"| {' | '.join(line)} |" for line in cells)


if __name__ == "__main__":
    sys.exit(main())
