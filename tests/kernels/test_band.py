"""The band against its own definition, key by key."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from inf_llm.kernels.band import Band, additive_mask

CPU = torch.device("cpu")
bands = st.builds(
    lambda offset, near, width: Band(offset, near, None if width is None else near + width),
    st.integers(-5, 30),
    st.integers(0, 20),
    st.none() | st.integers(1, 20),
)
sizes = st.tuples(st.integers(1, 12), st.integers(1, 30))


def sees(band: Band, query: int, key: int) -> bool:
    distance = query + band.offset - key
    return distance >= band.near and (band.far is None or distance < band.far)


@given(bands, sizes)
def test_visible(band: Band, size: tuple[int, int]) -> None:
    queries, keys = size
    want = [[sees(band, i, j) for j in range(keys)] for i in range(queries)]
    assert band.visible(queries, keys, CPU).tolist() == want


@given(bands, sizes)
def test_queries_that_see_nothing(band: Band, size: tuple[int, int]) -> None:
    blind = ~band.visible(*size, CPU).any(1)
    found = band.sees_nothing(*size, CPU)
    if found is None:
        assert not blind.any()
    else:
        assert found.tolist() == blind.tolist()


def test_no_band_is_needed_where_all_see() -> None:
    assert Band(4, 0, 5).sees_nothing(6, 10, CPU) is None
    assert Band(0, 1).sees_nothing(6, 10, CPU) is not None


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_as_a_bias(dtype: torch.dtype) -> None:
    for band in (Band(3, 0, 4), Band(3, 1), Band(3, 0, 5), Band(2, 0, 4)):
        bias = additive_mask(band, 5, 8, dtype, CPU)
        seen = band.visible(5, 8, CPU)
        assert bias.dtype == dtype
        assert (bias[seen] == 0).all()
        assert (bias[~seen] == -torch.inf).all()
