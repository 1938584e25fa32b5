"""Result rows in a folder, written one by one, so that an interrupted run can resume.

`run.json` records the request: a folder holds the rows of one run, to which contexts, tasks and
rules may be added. `rows.jsonl` has one row per line.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from inf_llm.atomic import write_atomically
from inf_llm.errors import SettingsError, reason

_RUN, _ROWS = "run.json", "rows.jsonl"
Row = dict[str, Any]


class Results:
    """The rows of a run, in a folder or only in this process.

    Args:
        folder: folder for the rows, which is made if it is missing; None for this process only.
        shared: values that must be the same for all rows of a folder.
        rules: settings of every rule, by name.

    Raises:
        SettingsError: the folder cannot be used, or holds the rows of another run.
    """

    def __init__(
        self, folder: Path | None, shared: Mapping[str, Any], rules: Mapping[str, Any]
    ) -> None:
        self.rows: list[Row] = []
        self._folder, self._shared = folder, shared
        if folder is None:
            return
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self._run_text = self._agreed(folder / _RUN, rules)
            self._take_up(folder / _ROWS)
        except OSError as error:
            raise SettingsError(
                f"--out {folder}: cannot be used ({error.strerror or error}): name a folder that "
                "may be written"
            ) from None

    def _agreed(self, file: Path, rules: Mapping[str, Any]) -> str:
        """Check the folder's `run.json` against this run; return the content that it must get."""
        try:
            known = dict(json.loads(file.read_bytes())) if file.exists() else {}
        except (ValueError, TypeError) as error:
            raise SettingsError(
                f"{file}: is not what a run left ({reason(error)}): name another folder"
            ) from None
        ours = json.loads(json.dumps({"asked": self._shared, "rules": rules}))
        before = known.get("asked", ours["asked"])
        for key, value in ours["asked"].items():
            if before.get(key) != value:
                raise _another(file, f"{key} = {before.get(key)!r}", f"{key} = {value!r}")
        held = known.get("rules", {})
        for name, settings in ours["rules"].items():
            if held.get(name, settings) != settings:
                raise _another(file, f"other settings for {name!r}", "these")
        return json.dumps({"asked": ours["asked"], "rules": held | ours["rules"]}, indent=1)

    def _take_up(self, file: Path) -> None:
        """Read the existing rows; remove a last line that was written only in part."""
        if not file.exists():
            return
        data = file.read_bytes()
        whole = data[: data.rfind(b"\n") + 1]
        if whole != data:
            file.write_bytes(whole)
        try:
            self.rows = [json.loads(line) for line in whole.splitlines()]
        except ValueError as error:
            raise SettingsError(
                f"{file}: is no file of rows ({error}): name another folder"
            ) from None

    def missing(self, task: str, context: int, rules: Sequence[str]) -> list[str]:
        """Return the rules for which a context lacks rows."""
        rows = list(self.of(task, context))
        counts = {rule: sum(row["rule"] == rule for row in rows) for rule in rules}
        probes = rows[0]["probes"] if rows else 1
        return [rule for rule in rules if counts[rule] < probes]

    def of(self, task: str, context: int) -> Iterator[Row]:
        """Iterate over the rows of one context."""
        return (row for row in self.rows if (row["task"], row["context"]) == (task, context))

    def add(self, row: Row) -> None:
        """Store a row, unless the row of this question and rule exists already."""
        if any(_key(row) == _key(old) for old in self.of(row["task"], row["context"])):
            return
        row = {**self._shared, **row}
        self.rows.append(row)
        if self._folder is not None:
            if self._run_text:
                write_atomically(self._folder / _RUN, (self._run_text + "\n").encode())
                self._run_text = ""
            with (self._folder / _ROWS).open("a", encoding="utf-8") as file:
                file.write(json.dumps(row) + "\n")


def _key(row: Row) -> tuple[Any, ...]:
    return row["task"], row["context"], row["question"], row["rule"]


def _another(file: Path, held: str, wanted: str) -> SettingsError:
    return SettingsError(
        f"{file} belongs to another run: it has {held}, and {wanted} is asked for: name another "
        "folder with --out, or ask for the same"
    )
