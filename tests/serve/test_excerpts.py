"""Characters of a text, by range; what is no range is refused."""

from __future__ import annotations

from typing import Any

import pytest

from inf_llm.serve import excerpts
from inf_llm.serve.documents import Document
from inf_llm.serve.errors import ApiError
from inf_llm.serve.excerpts import excerpt
from tests.serve.inprocess import Local, local

TEXT = "One \U0001f40b swims. Two \u05d3\u05d2 swim.\n"
DOCUMENT = Document(TEXT, "fish", places=[(0, 12, "page 1"), (12, len(TEXT), "page 2")])


@pytest.mark.parametrize(
    ("query", "start", "end", "labels"),
    [
        ({}, 0, len(TEXT), ["page 1", "page 2"]),
        ({"start": "4", "end": "5"}, 4, 5, ["page 1"]),
        ({"start": "12"}, 12, len(TEXT), ["page 2"]),
        ({"end": "12"}, 0, 12, ["page 1"]),
        ({"start": str(len(TEXT))}, len(TEXT), len(TEXT), []),
    ],
)
def test_characters_of_a_text(
    query: dict[str, str], start: int, end: int, labels: list[str]
) -> None:
    found = excerpt(DOCUMENT, query)
    assert (found["start"], found["end"], found["characters"]) == (start, end, len(TEXT))
    assert found["text"] == TEXT[start:end]
    assert [place["label"] for place in found["places"]] == labels


@pytest.mark.parametrize(
    ("query", "param"),
    [
        ({"start": "-1"}, "start"),
        ({"start": "1.5"}, "start"),
        ({"start": ""}, "start"),
        ({"start": "\u0663"}, "start"),  # a digit, but not one of these
        ({"start": str(len(TEXT) + 1)}, "start"),
        ({"end": "9" * 5000}, "end"),
        ({"start": "9", "end": "8"}, "end"),
        ({"offset": "1"}, "offset"),
    ],
)
def test_what_is_no_range(query: dict[str, str], param: str) -> None:
    with pytest.raises(ApiError) as refused:
        excerpt(DOCUMENT, query)
    assert (refused.value.status, refused.value.param) == (400, param)


def test_an_excerpt_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(excerpts, "LONGEST_EXCERPT", 10)
    assert excerpt(DOCUMENT, {"start": "3"})["end"] == 13
    with pytest.raises(ApiError, match="from start to 10 behind it"):
        excerpt(DOCUMENT, {"start": "3", "end": "14"})


def _get(server: Local, path: str, **more: Any) -> Any:
    return server.request("GET", f"/v1/documents/{path}", **more)


def test_the_route_has_the_rules_of_the_document() -> None:
    with local(api_key="right") as server:
        key = {"authorization": "Bearer right"}
        body = {"text": TEXT}
        document = server.request("POST", "/v1/documents", json=body, headers=key).json()
        path = f"{document['id']}/text"
        found = _get(server, path, params={"start": 4, "end": 5}, headers=key).json()
        assert found["text"] == "\U0001f40b"
        assert _get(server, path).status_code == 401
        assert _get(server, "doc-none/text", headers=key).status_code == 404
        assert _get(server, path, params={"start": "x"}, headers=key).status_code == 400
