"""The one door to attention kernels: `attend`, `merge` and `received`, or all in `attend_jointly`.

A kernel is a module with `attend` and `received` of the signatures below and a function `why_not`
that says what it cannot do; it is a row of `inf_llm.variants.KERNEL`. It may bring an
`attend_jointly` of its own, with a function `joins` that says of the first source whether it is
for such, and `BY_NAME_ONLY = True` where `auto` shall not try it. The reference
is the statement all others are tested against.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Iterable, Sequence
from dataclasses import replace
from types import ModuleType

import torch
from torch import Tensor

from inf_llm.errors import SettingsError
from inf_llm.kernels import reference
from inf_llm.kernels.band import Band
from inf_llm.kernels.scoring import Scoring
from inf_llm.kernels.source import Pieces, Source
from inf_llm.variants import KERNEL

__all__ = [
    "Band",
    "Pieces",
    "Scoring",
    "Source",
    "attend",
    "attend_jointly",
    "attend_rows",
    "merge",
    "received",
    "with_learned_sink",
]


def _pick(scoring: Scoring, *inputs: Tensor) -> ModuleType:
    """The kernel that is named, or the fastest that can do this.

    Raises:
        SettingsError: the kernel asked for cannot do this; "flash" asks for any but the reference.
    """
    asked = scoring.kernel
    needs_gradient = torch.is_grad_enabled() and any(part.requires_grad for part in inputs)
    if asked == "reference" or needs_gradient:
        return reference
    if asked in KERNEL:
        return _named(scoring, *inputs)
    for name in KERNEL:
        kernel = _load(name)
        if not getattr(kernel, "BY_NAME_ONLY", False) and kernel.why_not(scoring, *inputs) is None:
            return kernel
    if asked == "auto":
        return reference
    what = inputs[0].device.type + ("" if scoring.softcap is None else " with soft-capped scores")
    raise SettingsError(
        f"fattn = true: no fused kernel is there for {what}: set fattn to false", "fattn"
    )


def _named(scoring: Scoring, *inputs: Tensor) -> ModuleType:
    """The kernel asked for by name; what it cannot do with soft-capped scores, the reference does.

    Raises:
        SettingsError: it cannot do this.
    """
    kernel = _load(scoring.kernel)
    reason = kernel.why_not(scoring, *inputs)
    if reason is None:
        return kernel
    if scoring.softcap and kernel.why_not(replace(scoring, softcap=None), *inputs) is None:
        return reference
    raise SettingsError(
        f"kernel = {scoring.kernel!r} {reason}: use 'auto' or 'reference'", "kernel"
    )


@functools.cache
def _load(name: str) -> ModuleType:
    """A kernel's module; some import packages that are not always there."""
    kernel: ModuleType = KERNEL.get(name)
    return kernel


def attend(
    q: Tensor, k: Tensor, v: Tensor, scoring: Scoring, band: Band | None = None
) -> tuple[Tensor, Tensor]:
    """Softmax attention with its log-sum-exp.

    Args:
        q: queries (B, H, Q, D).
        k: keys (B, G, K, D); query head h reads key head ``h // (H // G)``.
        v: values (B, G, K, Dv).
        scoring: scale, soft cap and choice of kernel.
        band: which keys a query sees; None for all.

    Returns:
        Output (B, H, Q, Dv) in q's dtype, and natural log-sum-exp (B, H, Q) in float32, -inf for
        a query that sees no key. The output of such a query means nothing.
    """
    if not k.shape[2]:  # kernels disagree about no keys at all, and some do not survive them
        o = q.new_zeros(*q.shape[:3], v.shape[3])
        return o, q.new_full(q.shape[:3], -torch.inf, dtype=torch.float32)
    return _pick(scoring, q, k, v).attend(q, k, v, scoring, band)


def received(
    q: Tensor, k: Tensor, lse: Tensor, scoring: Scoring, band: Band | None = None
) -> Tensor:
    """Probability mass every key receives from all queries: (B, H, K) in float32.

    `lse` (B, H, Q) is the log-sum-exp of the *whole* softmax, of which these keys may be a part.
    """
    return _pick(scoring, q, k, lse).received(q, k, lse, scoring, band)


def merge(parts: Sequence[tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor]:
    """One softmax from attention over disjoint sets of keys.

    Each part is (output, lse) as `attend` gives them. Only the lse says what a part is worth: a
    part with -inf adds nothing, whatever its output holds.
    """
    if len(parts) == 1:
        return parts[0]
    lse = parts[0][1]
    for _, other in parts[1:]:
        lse = torch.logaddexp(lse, other)
    weighed = []
    for o, part in parts:
        weight = torch.exp(part - lse)[..., None]
        weighed.append(torch.where(weight > 0, o * weight, 0.0))
    return sum(weighed[1:], weighed[0]).to(parts[0][0].dtype), lse


def attend_jointly(
    sources: Iterable[Source], scoring: Scoring, learned_sink: Tensor | None = None
) -> tuple[Tensor, list[Tensor | None]]:
    """One softmax over all sources, whose keys are disjoint.

    Args:
        sources: taken one by one, so that what is still on its way to the device is waited for
            only once those before it are being computed.
        scoring: as for `attend`.
        learned_sink: a learned score per head (H,) that joins the softmax (gpt-oss), or None.

    Returns:
        Output (B, H, Q, Dv), and what mass the keys of each source received: (B, H, K) in float32,
        or None where it is not watched.
    """
    sources = iter(sources)
    first = next(sources)
    kernel = _pick(scoring, first.q, *first.pieces[0])
    sources = itertools.chain((first,), sources)
    if hasattr(kernel, "attend_jointly") and kernel.joins(first, learned_sink):
        together: tuple[Tensor, list[Tensor | None]]
        together = kernel.attend_jointly(sources, scoring)
        return together
    taken: list[tuple[Source, Tensor] | None] = []
    parts = []
    for source in sources:
        k, v = source.joined()
        parts.append(attend(source.q, k, v, scoring, source.band))
        taken.append((source, k) if source.watched else None)  # other keys may go
    o, lse = merge(parts)
    if learned_sink is not None:
        o, lse = with_learned_sink(o, lse, learned_sink)
    return o, [each and received(each[0].q, each[1], lse, scoring, each[0].band) for each in taken]


def attend_rows(
    rows: Sequence[Sequence[Source]], scoring: Scoring, learned_sink: Tensor | None = None
) -> tuple[Tensor, list[list[Tensor | None]]]:
    """As `attend_jointly` for each of n rows, with one query each and keys of its own.

    Args:
        rows: of each row its sources (1, ...); rows may have other numbers of them, and of keys.
        scoring: as for `attend`.
        learned_sink: as for `attend_jointly`.

    Returns:
        Output (n, H, 1, Dv), and of each row the masses that `attend_jointly` gives.
    """
    parts = [_parts_of(sources, scoring) for sources in rows]
    nothing = torch.zeros_like(parts[0][0][0]), torch.full_like(parts[0][0][1], -torch.inf)
    columns = itertools.zip_longest(*parts, fillvalue=nothing)
    together = [tuple(map(torch.cat, zip(*column, strict=True))) for column in columns]
    o, lse = merge(together)  # type: ignore[arg-type]
    if learned_sink is not None:
        o, lse = with_learned_sink(o, lse, learned_sink)
    each = zip(rows, lse.split(1), strict=True)
    return o, [[_mass_of(source, own, scoring) for source in sources] for sources, own in each]


def _parts_of(sources: Sequence[Source], scoring: Scoring) -> list[tuple[Tensor, Tensor]]:
    """Attention of one query to each piece by itself: to join them would copy all keys."""
    return [attend(source.q, k, v, scoring) for source in sources for k, v in source.pieces]


def _mass_of(source: Source, lse: Tensor, scoring: Scoring) -> Tensor | None:
    if not source.watched:
        return None
    masses = [received(source.q, k, lse, scoring) for k, _ in source.pieces]
    return masses[0] if len(masses) == 1 else torch.cat(masses, 2)


def with_learned_sink(o: Tensor, lse: Tensor, sink: Tensor) -> tuple[Tensor, Tensor]:
    """A learned score per head (H,) joins the denominator of the softmax (gpt-oss)."""
    joined = torch.logaddexp(lse, sink.float().view(1, -1, 1))
    share = torch.exp(lse - joined)[..., None]
    return torch.where(share > 0, o * share, 0.0).to(o.dtype), joined
