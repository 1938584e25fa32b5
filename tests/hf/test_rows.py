"""A batch of rows in one layer: padded rows each by themselves, and their state as one."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch
from torch import Tensor

from inf_llm.errors import UnsupportedInputError
from inf_llm.hf.rows import RowGroup
from tests.layers import make_layer, random_qkv, rule

PADS = (0, 20, 70)


def _feed(group: RowGroup, seed: int, pads: Sequence[int] | None = None, count: int = 60) -> Tensor:
    """Output of random tokens (3 rows); `pads` is the padding of all tokens so far."""
    q, k, v = random_qkv(count, rows=3, seed=seed)
    mask = None
    if pads is not None:
        mask = torch.arange(group.seen + count)[None] >= torch.tensor(pads)[:, None]
    with torch.no_grad():
        return group.attend(q, k, v, mask, rule())


def _padded() -> RowGroup:
    group = RowGroup(make_layer)
    for seed in (1, 2):
        _feed(group, seed, PADS)
    return group


def test_padded_rows_are_each_fed_alone() -> None:
    group, alone = RowGroup(make_layer), [make_layer() for _ in PADS]
    for turn, seed in enumerate((1, 2, 3)):
        out = _feed(group, seed, PADS)
        for row, layer in enumerate(alone):
            pad = min(60, max(0, PADS[row] - 60 * turn))
            own = [x[row : row + 1, :, pad:] for x in random_qkv(60, rows=3, seed=seed)]
            assert not out[row, :, :pad].any()
            if pad < 60:
                torch.testing.assert_close(out[row : row + 1, :, pad:], layer.attend(*own, rule()))
    assert [group.padding_of(row) for row in range(3)] == list(PADS)
    assert [group.row_of(member) for member in group.members] == [0, 1, 2]
    assert group.stats().tokens == 180


@pytest.mark.parametrize("pads", [None, PADS])
def test_a_fork_and_a_rollback_go_on_as_the_group_would_have(pads: tuple[int, ...] | None) -> None:
    group, apart = RowGroup(make_layer), RowGroup(make_layer)
    for seed in (1, 2):
        _feed(group, seed, pads)
        _feed(apart, seed, pads)
    wanted = _feed(apart, 3, pads)
    twin, state = group.fork(), group.checkpoint()
    assert not torch.allclose(_feed(group, 9, pads), wanted, atol=1e-2)
    assert torch.equal(_feed(twin, 3, pads), wanted)
    group.rollback(state)
    assert torch.equal(_feed(group, 3, pads), wanted)


def test_a_group_goes_back_to_before_its_first_feed() -> None:
    group = RowGroup(make_layer)
    state = group.checkpoint()
    _feed(group, 1, PADS)
    group.rollback(state)
    assert group.members == ()
    assert group.seen == group.count == 0


def test_padded_rows_may_repeat_and_vanish() -> None:
    group = _padded()
    wanted = _feed(_padded(), 3, PADS)
    group.select_rows(torch.tensor([2, 0, 2]))
    assert [group.padding_of(row) for row in range(3)] == [70, 0, 70]
    q, k, v = (x[[2, 0, 2]] for x in random_qkv(60, rows=3, seed=3))
    with torch.no_grad():
        out = group.attend(q, k, v, None, rule())
    torch.testing.assert_close(out, wanted[[2, 0, 2]])


def test_padding_after_a_text_has_begun_is_refused() -> None:
    for pads in (None, PADS):
        group = RowGroup(make_layer)
        for seed in (1, 2):
            _feed(group, seed, pads)
        late = (*PADS[:2], 121)
        with pytest.raises(UnsupportedInputError, match="row 2 has padding after its text has beg"):
            _feed(group, 3, late if pads else (0, 0, 121))


def test_another_number_of_rows_is_refused() -> None:
    group = _padded()
    q, k, v = random_qkv(4, rows=2)
    with pytest.raises(UnsupportedInputError, match="batch of 2 rows does not fit a memory of 3"):
        group.attend(q, k, v, None, rule())


MASKS = {
    "right": (torch.tensor([[1, 1, 0]]), "right padding, or a hole in the mask"),
    "hole": (torch.tensor([[1, 0, 1]]), "pad on the left"),
    "4-D": (torch.ones(1, 1, 3, 3), "mask of 4 dimensions is not supported"),
}


@pytest.mark.parametrize("name", MASKS)
def test_other_masks_are_refused(name: str) -> None:
    mask, message = MASKS[name]
    q, k, v = random_qkv(3)
    with pytest.raises(UnsupportedInputError, match=message):
        RowGroup(make_layer).attend(q, k, v, mask, rule())
