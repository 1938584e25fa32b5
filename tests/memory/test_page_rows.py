"""Pages as rows of bytes: whatever the planes are, they come back."""

from __future__ import annotations

import pytest
import torch

from inf_llm.memory.codec import Plane
from inf_llm.memory.page_rows import common_view, from_rows, row_bytes, to_rows

KINDS = {
    "alike": (Plane(6, torch.float32), Plane(4, torch.float32)),
    "half": (Plane(5, torch.bfloat16), Plane(2, torch.bfloat16)),
    "mixed": (Plane(6, torch.int8), Plane(2, torch.float16), Plane(4, torch.float32)),
    "bytes": (Plane(3, torch.uint8), Plane(5, torch.uint8)),
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("viewed", [False, True])
def test_there_and_back(kind: str, viewed: bool) -> None:
    planes = KINDS[kind]
    torch.manual_seed(0)
    pages = tuple((torch.randn(7, p.width) * 9).to(p.dtype) for p in planes)
    rows = to_rows(pages)
    assert rows.shape == (7, row_bytes(planes))
    assert rows[3].numpy().tobytes() == b"".join(
        page[3].view(torch.uint8).numpy().tobytes() for page in pages
    )
    rows = common_view(rows, planes) if viewed else rows
    for found, page in zip(from_rows(rows, planes), pages, strict=True):
        assert found.dtype == page.dtype
        assert torch.equal(found, page)


def test_rows_that_are_not_aligned_stay_bytes() -> None:
    rows = torch.zeros(81, dtype=torch.uint8)[1:].view(2, 40)
    assert common_view(rows, KINDS["alike"]).dtype == torch.uint8
