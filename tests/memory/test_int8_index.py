"""Search by int8 bounds finds what the exact products find."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from inf_llm.memory.int8_index import Int8Index
from inf_llm.memory.sketch import GROUP
from tests.attention.draws import examples
from tests.memory.indexes import WIDTH


@examples(40)
@given(data=st.data())
def test_a_sketch_changes_nothing(data: st.DataObject) -> None:
    """Many blocks of one row are sketched first; here it starts with the first block."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("inf_llm.memory.int8_index._SKETCH_FROM", 1)
        patch.setattr("inf_llm.memory.sketch._FEW", data.draw(st.sampled_from([0, 1 << 15])))
        patch.setattr("inf_llm.memory.int8_index._LIKELY", data.draw(st.sampled_from([0, 56])))
        if data.draw(st.booleans()):
            patch.setattr("inf_llm.native.sketch._functions", lambda: None)
        torch.manual_seed(data.draw(st.integers(0, 99)))
        size = data.draw(st.sampled_from([1e-6, 1.0, 1e4]))
        V, X = data.draw(st.sampled_from([(1, 1), (2, 2), (2, 4)]))
        dtype = data.draw(st.sampled_from([torch.float32, torch.bfloat16]))
        index, vectors = Int8Index(), torch.empty(V, 0, WIDTH, dtype=dtype)
        for _ in range(data.draw(st.integers(1, 6))):
            first = data.draw(st.integers(0, vectors.shape[1]))
            new = (size * torch.randn(V, data.draw(st.integers(1, 90)), WIDTH)).to(dtype)
            index.put(torch.arange(first, first + new.shape[1]), new)
            rest = vectors[:, first + new.shape[1] :]
            vectors = torch.cat((vectors[:, :first], new, rest), 1)
            total = data.draw(st.integers(1, vectors.shape[1]))
            topk = data.draw(st.integers(1, total))
            query = (torch.randn(1, X, WIDTH) * torch.logspace(0, 4, WIDTH)).to(dtype)
            if total < GROUP and dtype != torch.float32:
                continue  # too few to be sketched: scored in that dtype
            own = vectors[:, :total].double().repeat_interleave(X // V, 0)
            scores = torch.einsum("xnd,xd->xn", own, query[0].double())
            numbers, values = index.search(query, topk, total, None)
            assert torch.equal(numbers[0], scores.topk(topk).indices.sort().values)
            want = scores.gather(1, numbers[0]).float()
            near = float(want.abs().max()) * 1e-5
            torch.testing.assert_close(values[0], want, atol=near, rtol=1e-5)
