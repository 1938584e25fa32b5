"""Checks of the kernels against the reference, and of copies from page-locked memory."""

from __future__ import annotations

import time

import torch
from torch import Tensor

import inf_llm
from gpu_check.check import Check, DifferenceError, Figures
from inf_llm.attention.base import Rule
from inf_llm.attention.inf_llm import InfLLMAttention
from inf_llm.kernels import Band, Scoring, attend, received
from inf_llm.rope import Rope
from inf_llm.settings import InfLLMSettings

KERNELS = ("fused", "triton", "varlen", "flash-attn")
TOLERANCE = {torch.float32: 2e-4, torch.float16: 4e-3, torch.bfloat16: 3e-2}


def kernels(check: Check) -> Figures:
    """Compare every kernel with the reference in float32: a prompt's block, one decoded token."""
    width, heads, groups = (16, 4, 2) if check.small else (128, 32, 8)
    shapes = {"prompt": (64, 256), "decode": (1, 384)} if check.small else None
    shapes = shapes or {"prompt": (512, 4608), "decode": (1, 6144)}
    figures: Figures = {}
    for dtype in TOLERANCE:
        for name, (queries, keys) in shapes.items():
            generator = torch.Generator().manual_seed(0)
            sizes = ((heads, queries), (groups, keys), (groups, keys))
            q, k, v = (
                torch.randn(1, h, n, width, generator=generator).to(check.device, dtype)
                for h, n in sizes
            )
            band = Band(keys - queries, 0, keys - queries) if queries > 1 else None
            for kernel in KERNELS:
                row = f"{kernel}, {name}, {str(dtype).removeprefix('torch.')}"
                figures[row] = _kernel(check, kernel, (q, k, v), band)
    wrong = [row for row, found in figures.items() if found.get("wrong")]
    if wrong:
        raise DifferenceError(f"differ from the reference: {'; '.join(wrong)}", figures)
    return figures


def _kernel(
    check: Check, kernel: str, qkv: tuple[Tensor, Tensor, Tensor], band: Band | None
) -> Figures:
    q, k, v = qkv
    scale, limit = q.shape[-1] ** -0.5, TOLERANCE[q.dtype]
    reference, tested = Scoring(scale, kernel="reference"), Scoring(scale, kernel=kernel)
    try:
        (o, lse), milliseconds = check.timed(lambda: attend(q, k, v, tested, band))
        mass = received(q, k, lse, tested, band)
    except inf_llm.InfLLMError as error:  # not for this device or dtype, or not installed
        return {"left_out": str(error)}
    wide = q.float(), k.float(), v.float()
    want, want_lse = attend(*wide, reference, band)
    want_mass = received(*wide[:2], want_lse, reference, band)
    apart = {
        "output": float((o.float() - want).abs().max()),
        "log_sum_exp": float((lse - want_lse).abs().max()),
        "received": float((mass - want_mass).abs().max() / want_mass.abs().max()),
    }
    return {**apart, "ms": milliseconds, "wrong": not all(x <= limit for x in apart.values())}


def pinned_copies(check: Check) -> Figures:
    """Compare ways to copy blocks to the device, in one layer with far more blocks than slots.

    Host memory is page-locked or not, and copies run on a stream of their own or not.
    """
    width, tokens = (16, 400) if check.small else (128, 8192)
    sizes = {"n_init": 16, "n_local": 64, "block_size": 16, "topk": 4, "max_cached_block": 6}
    if not check.small:
        sizes = {"n_init": 128, "n_local": 1024, "block_size": 64, "topk": 8}
        sizes |= {"max_cached_block": 12}
    block = 4 * sizes["block_size"]
    generator = torch.Generator().manual_seed(0)
    text = [torch.randn(1, heads, tokens, width, generator=generator) for heads in (8, 2, 2)]
    ways: dict[str, tuple[torch.device, Figures]] = {
        "on the CPU": (torch.device("cpu"), {}),
        "pinned": (check.device, {}),
        "pinned, own stream": (check.device, {"async_global_stream": True}),
        "not pinned": (check.device, {"pin_memory": False}),
    }
    figures: Figures = {}
    outputs: dict[str, Tensor] = {}
    for name, (device, more) in ways.items():
        settings = InfLLMSettings(**sizes, exc_block_size=block, **more)
        layer = InfLLMAttention(Rope.from_base(width, 10000.0), settings, slots=True)
        placed = [x.to(device) for x in text]
        check.wait()
        before, parts = time.perf_counter(), []
        for q, k, v in zip(*(x.split(block, 2) for x in placed), strict=True):
            parts.append(layer.attend(q, k, v, Rule(Scoring(width**-0.5))))
        outputs[name] = torch.cat(parts, 2).cpu()
        seconds, stats = time.perf_counter() - before, layer.stats()
        figures[name] = {"seconds": seconds, "loads": stats.loads, "evictions": stats.evictions}
        figures[name]["apart"] = float((outputs[name] - outputs["on the CPU"]).abs().max())
    same = all(torch.equal(outputs["pinned"], outputs[name]) for name in list(ways)[1:])
    if not same or figures["pinned"]["apart"] > 1e-3 or not figures["pinned"]["evictions"]:
        raise DifferenceError("the ways to bring blocks to the device do not agree", figures)
    return figures
