"""The house stands as drawn: imports point downward, without circles, and late where heavy."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib  # comes with pytest

ROOT = Path(__file__).parent.parent
ROOMS = ("inf_llm", "benchmark")

# From the top of the house to the ground. A module may import those of its own floor's package and
# anything below; the first prefix that fits decides.
FLOORS: list[tuple[str, ...]] = [
    ("inf_llm.cli", "inf_llm.chat", "inf_llm.serve", "inf_llm.cluster", "benchmark"),
    ("inf_llm.testing", "inf_llm.picture", "inf_llm.demo", "inf_llm.fidelity", "inf_llm.plan"),
    ("inf_llm.generation",),
    ("inf_llm.hf",),
    ("inf_llm.attention", "inf_llm.scaling"),
    ("inf_llm.memory", "inf_llm.kernels", "inf_llm.rope"),
    ("inf_llm.saved",),
    ("inf_llm.native", "inf_llm.state"),
    ("inf_llm.config", "inf_llm.needles"),
    ("inf_llm.config_file", "inf_llm.conversation", "inf_llm.settings"),
    ("inf_llm.published", "inf_llm.options", "inf_llm.base_settings", "inf_llm.formats"),
    ("inf_llm.checks", "inf_llm.choice", "inf_llm.variants", "inf_llm.truncation"),
    ("inf_llm.processor", "inf_llm.untried", "inf_llm.not_picklable"),
    ("inf_llm.registry", "inf_llm.units", "inf_llm.optional", "inf_llm.user_cache"),
    ("inf_llm.atomic",),
    ("inf_llm.errors",),
]
FORBIDDEN = [
    ("inf_llm.chat", "inf_llm.cli"),
    ("inf_llm.chat", "inf_llm.serve"),
    ("inf_llm.serve", "inf_llm.cli"),
    ("inf_llm.serve", "inf_llm.chat"),
    ("inf_llm.serve", "inf_llm.cluster"),
    ("inf_llm.cluster", "inf_llm.cli"),
    ("inf_llm.cluster", "inf_llm.chat"),
    ("inf_llm.memory", "inf_llm.rope"),
    ("inf_llm.memory", "inf_llm.attention"),
    ("inf_llm.memory", "transformers"),
    ("inf_llm.attention", "inf_llm.memory.evict"),
    ("inf_llm.attention", "inf_llm.memory.tiers"),
    ("inf_llm.attention", "inf_llm.memory.block_store"),
    ("inf_llm.attention", "transformers"),
    ("inf_llm.kernels", "inf_llm.memory"),
    ("inf_llm.rope", "inf_llm.memory"),
    ("inf_llm.kernels", "transformers"),
    ("inf_llm.rope", "transformers"),
]


def _modules() -> dict[str, Path]:
    found = {}
    for room in ROOMS:
        for file in sorted((ROOT / room).rglob("*.py")):
            parts = list(file.relative_to(ROOT).with_suffix("").parts)
            found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = file
    return found


MODULES = _modules()


def _within(name: str, package: str) -> bool:
    return name == package or name.startswith(package + ".")


def _imports(module: str, *, eager: bool = False) -> Iterator[str]:
    """Modules that a module imports; `eager` leaves out what functions import when called."""
    tree = ast.parse(MODULES[module].read_text(encoding="utf-8"))
    for node in _nodes(tree, into_functions=not eager):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{module}: imports are written in full"
            assert node.module is not None
            for alias in node.names:
                inner = f"{node.module}.{alias.name}"
                yield inner if inner in MODULES else node.module


def _nodes(node: ast.AST, into_functions: bool) -> Iterator[ast.AST]:
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef) and not into_functions:
            continue
        if isinstance(child, ast.If) and "TYPE_CHECKING" in ast.dump(child.test):
            continue
        yield child
        yield from _nodes(child, into_functions)


def _floor(module: str) -> int | None:
    floors = [
        (len(prefix), number)
        for number, prefixes in enumerate(FLOORS)
        for prefix in prefixes
        if _within(module, prefix)
    ]
    return max(floors)[1] if floors else None


def _package(module: str) -> str:
    prefixes = [prefix for floor in FLOORS for prefix in floor if _within(module, prefix)]
    return max(prefixes, key=len)


@pytest.mark.parametrize("module", [name for name in MODULES if name != "inf_llm"])
def test_imports_point_downward(module: str) -> None:
    own = _floor(module)
    assert own is not None, f"{module} has no floor: give it one in FLOORS"
    for imported in _imports(module):
        floor = _floor(imported)
        if floor is None or _package(imported) == _package(module):
            continue
        assert floor >= own, f"{module} imports {imported}, which is above it"


@pytest.mark.parametrize(("room", "other"), FORBIDDEN)
def test_rooms_that_do_not_know_each_other(room: str, other: str) -> None:
    for module in MODULES:
        if _within(module, room) and not module.endswith(".__main__"):
            knows = [name for name in _imports(module) if _within(name, other)]
            assert not knows, f"{module} imports {knows[0]}"


def test_only_the_seam_knows_how_models_are_written() -> None:
    for module in MODULES:
        if not _within(module, "inf_llm.hf"):
            deep = [name for name in _imports(module) if name.startswith("transformers.models")]
            assert not deep, f"{module} imports {deep[0]}"


def test_no_import_circles() -> None:
    graph = {
        module: {name for name in _imports(module, eager=True) if name in MODULES} - {module}
        for module in MODULES
    }
    while graph:
        leaves = {module for module, imports in graph.items() if not imports & graph.keys()}
        assert leaves, f"these import each other in a circle: {sorted(graph)}"
        graph = {module: imports for module, imports in graph.items() if module not in leaves}


MIRRORED = ("serve", "hf", "memory", "attention", "saved", "formats")
ELSEWHERE = {
    "inf_llm.memory.load_code": "the Triton code of load: tests/memory/test_load.py",
    "inf_llm.formats.archive": "tests/formats/test_epub.py, test_docx.py",
    "inf_llm.formats.blocks": "what HTML is made of: tests/formats/test_page.py",
    "inf_llm.formats.magic": "tests/generation/test_documents.py",
    "inf_llm.formats.worker": "the process of bounded: tests/formats/test_bounded.py",
}
"""Modules whose test is not called after them, and where it is."""


@pytest.mark.parametrize("room", ["serve", "chat"])
def test_a_list_of_modules_is_complete(room: str) -> None:
    """Where a package lists its modules, it lists them all, and no others."""
    folder = ROOT / "inf_llm" / room
    listed = re.findall(r"^ *(\w+\.py) ", (folder / "__init__.py").read_text(), re.M)
    hidden = ("__init__.py", "__main__.py")
    assert sorted(listed) == sorted(f.name for f in folder.glob("*.py") if f.name not in hidden)


@pytest.mark.parametrize("room", MIRRORED)
def test_every_module_has_a_test_of_its_name(room: str) -> None:
    tests = ROOT / "tests" / room
    names = [name.rpartition(".")[2] for name in MODULES if _within(name, f"inf_llm.{room}")]
    lacking = {
        name
        for name in names
        if name != room and f"inf_llm.{room}.{name}" not in ELSEWHERE
        if not (tests / f"test_{name}.py").exists()
    }
    assert not lacking, f"give each of these a tests/{room}/test_NAME.py: {sorted(lacking)}"


HEAVY = ("torch", "transformers", "faiss", "matplotlib", "datasets", "fastapi", "triton", "ray")


@pytest.mark.parametrize(
    ("statement", "heavy"),
    [
        ("import inf_llm", HEAVY),
        ("import inf_llm.cli", HEAVY),
        ("import inf_llm.config", HEAVY),
        ("import inf_llm.memory.block_memory", ("transformers", *HEAVY[2:6])),
        ("import inf_llm.hf.patch, inf_llm.generation", HEAVY[2:6]),
    ],
)
def test_what_is_heavy_or_optional_is_imported_late(statement: str, heavy: tuple[str, ...]) -> None:
    code = f"{statement}; import sys; print(*[m for m in {heavy!r} if m in sys.modules])"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.split() == []


ENTRANCES = ("inf_llm", "inf_llm.cli", "inf_llm.testing", "inf_llm.generation", "inf_llm.hf.load")


def test_what_needs_an_extra_is_imported_late() -> None:
    """Whatever an entrance imports at once is the package's own, Python's, or a requirement."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    declared = {row.split(">")[0] for row in project["dependencies"]}
    allowed = {*declared, "yaml", "inf_llm", *sys.stdlib_module_names}
    seen, waiting = set(), list(ENTRANCES)
    while waiting:
        module = waiting.pop()
        seen.add(module)
        imports = set(_imports(module, eager=True))
        roots = {name.split(".")[0] for name in imports}
        assert roots <= allowed, f"{module} imports {roots - allowed}"
        waiting += [name for name in imports if name in MODULES and name not in seen]
    assert len(seen) > len(ENTRANCES)


def test_requirements_are_those_of_the_project() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    lines = (ROOT / "requirements.txt").read_text().splitlines()
    assert [line for line in lines if not line.startswith("#")] == project["dependencies"]
