"""Registries load rows late and answer an unknown name with the nearest one."""

from __future__ import annotations

import importlib
import pkgutil

import pytest

import inf_llm
from inf_llm.errors import SettingsError
from inf_llm.registry import Registry, accepted, nearest


@pytest.fixture
def colours() -> Registry:
    return Registry("colour", {"red": "colorsys:rgb_to_hsv", "blue": "no_such_module:Blue"})


def test_rows_load_when_asked_for(colours: Registry) -> None:
    assert colours.get("red").__name__ == "rgb_to_hsv"
    with pytest.raises(ModuleNotFoundError):
        colours.get("blue")


def test_names(colours: Registry) -> None:
    assert list(colours) == ["red", "blue"]
    assert "red" in colours
    assert "green" not in colours


def test_unknown_name_lists_the_known_ones(colours: Registry) -> None:
    with pytest.raises(SettingsError, match="'bleu' is not a known colour; did you mean 'blue'"):
        colours.get("bleu")


def test_added_row(colours: Registry) -> None:
    colours.add("green", "math:pi")
    assert colours.get("green") > 3


@pytest.mark.parametrize("place", ["no_such_module:Blue", "math:tau_and_a_half"])
def test_an_added_row_that_cannot_be_imported_is_named(colours: Registry, place: str) -> None:
    colours.add("green", place)
    for read in (colours.get, colours.options):
        with pytest.raises(SettingsError, match=f"colour 'green' is to be at '{place}', which"):
            read("green")


def test_nearest_counts_the_last_part_of_a_dotted_name() -> None:
    assert nearest("topk", ["model.base", "model.topk"]) == "did you mean 'model.topk'? "
    assert nearest("xyz", ["model.base", "model.topk"]) == ""


def test_a_long_list_is_left_out_where_one_name_is_near() -> None:
    many = [f"name{number}" for number in range(20)]
    assert accepted("name1x", many) == "did you mean 'name1'?"
    assert "name19" in accepted("other", many)


def _registries() -> list[tuple[str, Registry]]:
    found: dict[int, tuple[str, Registry]] = {}
    for info in pkgutil.walk_packages(inf_llm.__path__, "inf_llm."):
        try:
            module = importlib.import_module(info.name)
        except ModuleNotFoundError as error:
            if error.name is None or error.name.startswith("inf_llm"):
                raise
            continue  # it needs an extra that is not installed here
        for name, value in vars(module).items():
            if isinstance(value, Registry):
                found.setdefault(id(value), (f"{info.name}.{name}", value))
    return list(found.values())


ROWS = [(where, registry, row) for where, registry in _registries() for row in registry]


@pytest.mark.parametrize(("where", "registry", "row"), ROWS, ids=[f"{w}-{r}" for w, _, r in ROWS])
def test_every_registered_row_loads(where: str, registry: Registry, row: str) -> None:
    try:
        assert registry.get(row) is not None, f"{where}[{row!r}]"
    except ModuleNotFoundError as error:
        if error.name is None or error.name.startswith("inf_llm"):
            raise
        pytest.skip(f"{error.name} is not installed here")
