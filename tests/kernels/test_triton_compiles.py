"""The Triton kernels compile for Hopper, which needs no GPU, and fit one of its multiprocessors."""

from __future__ import annotations

from typing import Any

import pytest
import torch

pytest.importorskip("triton", reason="triton is not installed")

import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from inf_llm.kernels import triton_impl

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(triton_impl.interpreted(), reason="interpreted programs do not compile"),
]

NAMES = {torch.float32: "fp32", torch.float16: "fp16", torch.bfloat16: "bf16"}
ROOM = 227 << 10
STRIDES = [f"{x}_{of}" for x in "qkv" for of in ("row", "head", "token")]
POINTERS = ("q", "k", "v", "o", "lse", "mass", "parts", "part_lse", "table", "target")


def compiled(name: str, dtype: torch.dtype, constants: dict[str, Any], **options: int) -> Any:
    """A kernel with strides and pointers aligned, as the tensors of a model are."""
    from inf_llm.kernels import triton_code
    from inf_llm.memory import load_code

    kernel = getattr(load_code if name == "load_kernel" else triton_code, name)
    kinds = dict.fromkeys(kernel.arg_names, "i32")
    kinds |= dict.fromkeys(POINTERS, f"*{NAMES[dtype]}")
    kinds |= {"lse": "*fp32", "mass": "*fp32", "parts": "*fp32", "part_lse": "*fp32"}
    kinds |= {"more": "*fp32", "more_lse": "*fp32"}
    kinds |= {"scale": "fp32", "softcap": "fp32"}
    kinds |= {"missing": "*i8", **dict.fromkeys(("slabs", "units", "slots"), "*i64")}
    kinds |= {"table": "*i64"} if constants.get("PAGED") else {}
    kinds |= dict.fromkeys(constants, "constexpr")
    place = {argument: (i,) for i, argument in enumerate(kernel.arg_names)}
    source = ASTSource(
        kernel,
        {argument: kinds[argument] for argument in kernel.arg_names},
        constexprs={place[key]: value for key, value in constants.items()},
        attrs={
            place[key]: [["tt.divisibility", 16]] for key in (*POINTERS, *STRIDES) if key in place
        },
    )
    return triton.compile(source, target=GPUTarget("cuda", 90, 32), options=options)


def options_of(dtype: torch.dtype) -> dict[str, Any]:
    precision = "tf32x3" if dtype == torch.float32 else "tf32"
    return {"SHARED": 4, "BANDED": True, "CAPPED": True, "PRECISION": precision}


@pytest.mark.parametrize(
    ("dtype", "rows", "width", "paged"),
    [
        (torch.bfloat16, 2048, 128, False),
        (torch.bfloat16, 4, 128, False),
        (torch.bfloat16, 2048, 128, True),
        (torch.bfloat16, 4, 128, True),
        (torch.bfloat16, 2048, 192, False),
        (torch.float16, 2048, 64, False),
        (torch.float32, 2048, 128, False),
        (torch.float32, 4, 128, False),
    ],
    ids=str,
)
def test_attend(dtype: torch.dtype, rows: int, width: int, paged: bool) -> None:
    tiles = triton_impl._tiles(rows, width, dtype, ROOM)
    padded = triton_impl._padded(width)
    constants = {
        "D": width,
        "DV": width,
        "BLOCK_D": padded,
        "BLOCK_V": padded,
        "PAGED": paged,
        **{key: tiles[key] for key in ("BLOCK_M", "BLOCK_N")},
        **options_of(dtype),
        "BANDED": not paged,
    }
    options = {key: tiles[key] for key in ("num_warps", "num_stages")}
    program = compiled("attend_kernel", dtype, constants, **options)
    assert program.metadata.shared <= ROOM
    if rows > 64 and dtype != torch.float32:
        assert "wgmma" in program.asm["ptx"]


@pytest.mark.parametrize("name", ["received_kernel", "received_one_kernel"])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32], ids=str)
def test_received(name: str, dtype: torch.dtype) -> None:
    half = dtype != torch.float32
    constants = {
        "D": 128,
        "BLOCK_D": 128,
        "BLOCK_N": 128 if half else 64,
        "BLOCK_M": 16 if "one" in name else 64 if half else 32,
        **options_of(dtype),
    }
    program = compiled(name, dtype, constants, num_stages=3 if half else 2)
    assert program.metadata.shared <= ROOM


def test_combine() -> None:
    compiled("combine_kernel", torch.bfloat16, {"DV": 128, "BLOCK_V": 128}, num_warps=1)


def test_loading_pages() -> None:
    compiled("load_kernel", torch.bfloat16, {"BLOCK": 1024})
