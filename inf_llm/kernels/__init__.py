"""The interface to attention kernels: `attend`, `merge`, `received`, and `attend_jointly` for all.

A kernel is a row of `inf_llm.variants.KERNEL`: a module with functions `attend` and `received` with
the signatures below, and a function `why_not` that returns why the kernel cannot compute given
inputs, or None. A kernel may also have its own `attend_jointly`, with a function `joins` that
returns whether `attend_jointly` supports sources like the first one, and `BY_NAME_ONLY = True`
if `auto` must skip the kernel. All kernels are tested against the kernel `reference`.
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
    """Return the kernel that is named, or the fastest kernel that supports the inputs.

    Raises:
        SettingsError: the kernel does not support the inputs, or no kernel but the reference does
            and the name is "flash".
    """
    requested = scoring.kernel
    needs_gradient = torch.is_grad_enabled() and any(part.requires_grad for part in inputs)
    if requested == "reference" or needs_gradient:
        return reference
    if requested in KERNEL:
        return _named(scoring, *inputs)
    for name in KERNEL:
        kernel = _load(name)
        if not getattr(kernel, "BY_NAME_ONLY", False) and kernel.why_not(scoring, *inputs) is None:
            return kernel
    if requested == "auto":
        return reference
    what = inputs[0].device.type + ("" if scoring.softcap is None else " with soft-capped scores")
    raise SettingsError(
        f"fattn = true: no fused kernel is there for {what}: set fattn to false", "fattn"
    )


def _named(scoring: Scoring, *inputs: Tensor) -> ModuleType:
    """Return the kernel with a given name, or the reference if only the soft cap is not supported.

    Raises:
        SettingsError: the kernel does not support the inputs.
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
    """Import a kernel's module at its first use; some kernels need optional packages."""
    kernel: ModuleType = KERNEL.get(name)
    return kernel


def attend(
    q: Tensor, k: Tensor, v: Tensor, scoring: Scoring, band: Band | None = None
) -> tuple[Tensor, Tensor]:
    """Compute softmax attention and its log-sum-exp.

    Args:
        q: queries (B, H, Q, D).
        k: keys (B, G, K, D); query head h reads key head ``h // (H // G)``.
        v: values (B, G, K, Dv).
        scoring: scale, soft cap and choice of kernel.
        band: the keys that each query sees; None for all.

    Returns:
        Output (B, H, Q, Dv) in q's dtype, and natural log-sum-exp (B, H, Q) in float32, -inf for
        a query that sees no key. The output of such a query is undefined.
    """
    if not k.shape[2]:  # without keys, the results of kernels differ, and some kernels crash
        o = q.new_zeros(*q.shape[:3], v.shape[3])
        return o, q.new_full(q.shape[:3], -torch.inf, dtype=torch.float32)
    return _pick(scoring, q, k, v).attend(q, k, v, scoring, band)


def received(
    q: Tensor, k: Tensor, lse: Tensor, scoring: Scoring, band: Band | None = None
) -> Tensor:
    """Return the attention mass that each key receives from all queries: (B, H, K) in float32.

    `lse` (B, H, Q) is the log-sum-exp of the *whole* softmax; the keys here may be a part of its
    keys.
    """
    return _pick(scoring, q, k, lse).received(q, k, lse, scoring, band)


def merge(parts: Sequence[tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor]:
    """Merge attention over disjoint sets of keys into one softmax.

    Each part is (output, lse) as `attend` returns them. The weight of a part depends only on its
    lse: a part with an lse of -inf adds nothing, even if its output is undefined.
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
    """Compute one softmax over all sources, which have disjoint keys.

    Args:
        sources: the sources, taken one by one. The wait for keys that are still being copied to the
            device begins only after the computation of the sources before has started.
        scoring: as for `attend`.
        learned_sink: a learned score per head (H,) that joins the softmax (gpt-oss), or None.

    Returns:
        Output (B, H, Q, Dv), and for each source the attention mass of its keys: (B, H, K) in
        float32, or None for a source that is not watched.
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
        taken.append((source, k) if source.needs_mass else None)  # frees the keys of other sources
    o, lse = merge(parts)
    if learned_sink is not None:
        o, lse = with_learned_sink(o, lse, learned_sink)
    return o, [pair and received(pair[0].q, pair[1], lse, scoring, pair[0].band) for pair in taken]


def attend_rows(
    rows: Sequence[Sequence[Source]], scoring: Scoring, learned_sink: Tensor | None = None
) -> tuple[Tensor, list[list[Tensor | None]]]:
    """Compute `attend_jointly` for n rows, each with one query and its own keys.

    Args:
        rows: the sources (1, ...) of each row; rows may differ in their numbers of sources and
            keys.
        scoring: as for `attend`.
        learned_sink: as for `attend_jointly`.

    Returns:
        Output (n, H, 1, Dv), and for each row the masses as in `attend_jointly`.
    """
    kernel = _pick(scoring, rows[0][0].q, *rows[0][0].pieces[0])
    if hasattr(kernel, "attend_jointly") and kernel.joins(rows[0][0], learned_sink):
        results = [kernel.attend_jointly(sources, scoring) for sources in rows]
        return torch.cat([o for o, _ in results]), [masses for _, masses in results]
    parts = [_parts_of(sources, scoring) for sources in rows]
    nothing = torch.zeros_like(parts[0][0][0]), torch.full_like(parts[0][0][1], -torch.inf)
    columns = itertools.zip_longest(*parts, fillvalue=nothing)
    together = [tuple(map(torch.cat, zip(*column, strict=True))) for column in columns]
    o, lse = merge(together)  # type: ignore[arg-type]
    if learned_sink is not None:
        o, lse = with_learned_sink(o, lse, learned_sink)
    pairs = zip(rows, lse.split(1), strict=True)
    return o, [
        [_mass_of(source, row_lse, scoring) for source in sources] for sources, row_lse in pairs
    ]


def _parts_of(sources: Sequence[Source], scoring: Scoring) -> list[tuple[Tensor, Tensor]]:
    """Attend with one query to each piece separately, because joining pieces copies all keys."""
    return [attend(source.q, k, v, scoring) for source in sources for k, v in source.pieces]


def _mass_of(source: Source, lse: Tensor, scoring: Scoring) -> Tensor | None:
    if not source.needs_mass:
        return None
    masses = [received(source.q, k, lse, scoring) for k, _ in source.pieces]
    return masses[0] if len(masses) == 1 else torch.cat(masses, 2)


def with_learned_sink(o: Tensor, lse: Tensor, sink: Tensor) -> tuple[Tensor, Tensor]:
    """Add a learned score per head (H,) to the denominator of the softmax (gpt-oss)."""
    joined = torch.logaddexp(lse, sink.float().view(1, -1, 1))
    share = torch.exp(lse - joined)[..., None]
    return torch.where(share > 0, o * share, 0.0).to(o.dtype), joined
