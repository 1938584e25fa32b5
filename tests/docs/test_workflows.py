"""The workflows are well formed, name what there is, and grant no more than they need."""

from __future__ import annotations

import re
import sys
from typing import Any

import pytest
import yaml

import inf_llm
from tests.docs.pages import ROOT

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib  # comes with pytest

FOLDER = ROOT / ".github" / "workflows"
FLOWS: dict[str, Any] = {file.stem: yaml.safe_load(file.read_text()) for file in FOLDER.iterdir()}
JOBS = [(flow, job) for flow, content in FLOWS.items() for job in content["jobs"]]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


@pytest.mark.parametrize(("flow", "job"), JOBS)
def test_a_job(flow: str, job: str) -> None:
    content = FLOWS[flow]["jobs"][job]
    assert content["runs-on"]
    assert content["timeout-minutes"] <= 90
    for step in content["steps"]:
        assert ("uses" in step) != ("run" in step)
        assert re.fullmatch(r"[\w-]+/[\w-]+@(v\d+|release/v\d+)", step.get("uses", "a/b@v1"))
        for word in step.get("run", "").split():
            if re.fullmatch(r"[\w./]+\.(sh|py)|\.ci/run", word):
                assert (ROOT / word).exists(), word


def test_a_job_waits_only_for_jobs() -> None:
    for flow, job in JOBS:
        needs = FLOWS[flow]["jobs"][job].get("needs", [])
        assert {needs} if isinstance(needs, str) else set(needs) <= set(FLOWS[flow]["jobs"])


def test_only_publishing_may_prove_who_it_is() -> None:
    assert all(content["permissions"] == {"contents": "read"} for content in FLOWS.values())
    grants = {job: FLOWS[flow]["jobs"][job].get("permissions") for flow, job in JOBS}
    publish = FLOWS["release"]["jobs"]["publish"]
    assert {job for job, grant in grants.items() if grant} == {"publish"}
    assert publish["permissions"] == {"id-token": "write"}
    assert publish["environment"] == "pypi"
    assert not [step for step in publish["steps"] if "run" in step]


def test_the_oldest_versions_are_those_promised() -> None:
    jobs = FLOWS["ci"]["jobs"]
    assert f">={jobs['all']['strategy']['matrix']['python'][0]}" == PROJECT["requires-python"]
    promised = next(row for row in PROJECT["dependencies"] if row.startswith("transformers"))
    oldest = re.search(
        r'test_versions\.sh "([\d.]+)\.\*"', jobs["transformers"]["steps"][-1]["run"]
    )
    assert oldest is not None
    assert promised == f"transformers>={oldest[1]}"


def test_one_version() -> None:
    assert PROJECT["version"] == inf_llm.__version__
    cited = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert cited["version"] == inf_llm.__version__
    assert cited["cff-version"] == "1.2.0"
    papers = {paper["identifiers"][0]["value"] for paper in cited["references"]}
    assert papers == {"arXiv:2402.04617", "arXiv:2308.16137", "arXiv:2309.17453"}
