"""What is installed from a wheel, away from the checkout, and what its page links to."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

from scripts import absolute_links

ROOT = Path(__file__).parents[2]
OF_BUILD = ("pyproject.toml", "setup.py", "README.md", "LICENSE", "inf_llm", "config")


def test_a_wheel_has_all_data_and_its_page_links_to_the_repository(
    tmp_path: Path,
) -> None:
    source, installed = tmp_path / "source", tmp_path / "installed"
    source.mkdir()
    for name in OF_BUILD:  # a copy, for a build leaves folders behind that the next one would use
        ignored = shutil.ignore_patterns("__pycache__", "*.so")
        original = ROOT / name
        if original.is_dir():
            shutil.copytree(original, source / name, symlinks=True, ignore=ignored)
        else:
            shutil.copy(original, source)
    absolute_links.main(["https://example.org/owner/name", "v1.2.3", str(source / "README.md")])
    build = [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "--no-index"]
    build += ["--no-build-isolation", "-w", ".", "./source"]
    without_compiler = {**os.environ, "CC": "false"}
    subprocess.run(build, cwd=tmp_path, env=without_compiler, check=True)
    (wheel,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(installed)
    for file in [*ROOT.glob("config/*"), *ROOT.glob("inf_llm/assets/*.*")]:
        place = "config" if file.parent.name == "config" else ""
        assert (installed / "inf_llm/assets" / place / file.name).read_bytes() == file.read_bytes()
    (metadata,) = installed.glob("*.dist-info/METADATA")
    page = metadata.read_text(encoding="utf-8")
    assert "https://example.org/owner/name/blob/v1.2.3/docs/guide.md" in page
    assert not re.findall(r"\]\((?!https?:|#)[^)]*\)", page), "a link that leads nowhere"
    code = "from inf_llm.config import *; print(load_config('demo').source)"
    away = {**os.environ, "PYTHONPATH": str(installed)}
    run = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env=away, capture_output=True, check=True
    )
    assert Path(run.stdout.decode().strip()).parent == installed / "inf_llm/assets/config"
