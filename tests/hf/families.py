"""Build the families of `zoo`, sharpen them, and measure one row of the table each.

    python -m tests.hf.families [NAME ...]

prints the table: how far a patched model's logits are from its own, relative to the largest one,
and how far two deliberately wrong patches are; then how far the model in bfloat16 is from float32,
as it is and patched.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
import transformers
from torch import Tensor

import inf_llm
from inf_llm.errors import InfLLMError
from tests.hf.zoo import BASE, REFUSED, WORKING, Family

TOLERANCE = 2e-5  # of the largest logit; float32
FITS = {"n_local": 256, "n_init": 8, "exc_block_size": 32, "block_size": 16, "topk": 3}
FITS |= {"repr_topk": 2, "max_cached_block": 4}
TOO_SMALL = {"n_local": 8, "n_init": 2, "exc_block_size": 8, "block_size": 4, "topk": 1}
TOO_SMALL |= {"repr_topk": 2, "max_cached_block": 1}
_ROWS, _TOKENS, _PADDING, _NEW = 2, 150, 40, 10
_ASKS = ("q_proj", "k_proj", "qkv", "query_key_value", "q_b", "kv_b", "q_a", "kv_a", "kv_proj")
_ASKS += ("self_attention.experts.input",)  # jetmoe


@dataclass(frozen=True)
class Row:
    """What was measured; differences are relative to the largest logit of the model as it is.

    Attributes:
        forward: logits of one forward call.
        greedy: logits along greedy generation, infinite where the tokens differ.
        padded: the same, one row padded on the left.
        chunked: the same again, the prompt fed in chunks.
        restored: whether unpatching gave the very same logits.
        small_window: logits with a window the text does not fit (a control, must be large).
        wrong_angles: logits with rotary angles halved (a control, must be large).
        seconds: for all of it.
    """

    forward: float
    greedy: float
    padded: float
    chunked: float
    restored: bool
    small_window: float
    wrong_angles: float
    seconds: float

    @property
    def differences(self) -> dict[str, float]:
        """Those that must be small."""
        return {name: getattr(self, name) for name in ("forward", "greedy", "padded", "chunked")}

    @property
    def controls(self) -> dict[str, float]:
        """Those that must be large."""
        return {name: getattr(self, name) for name in ("small_window", "wrong_angles")}


@dataclass(frozen=True)
class RoundedRow:
    """What a row gives in a half precision format: distances from the model's float32 logits.

    Each is a root mean square, relative to that of the logits.

    Attributes:
        own: the model as it is.
        patched: patched, the text fits the window.
        small_window: with a window the text does not fit (a control, must be large).
    """

    own: float
    patched: float
    small_window: float

    @property
    def right(self) -> bool:
        """Whether the patched model rounds no worse than the model does by itself."""
        return self.patched <= MARGIN * self.own + 1e-3


MARGIN = 1.5
OLDER = not hasattr(transformers.Cache, "activate_past_recording")


def exists(family: Family) -> bool:
    """Whether the installed transformers has this family, and can feed it in parts."""
    known = all(hasattr(transformers, name) for name in family.class_names)
    return known and not (family.recent and OLDER)


def build(family: Family, seed: int = 0) -> Any:
    """A tiny random model whose attention is sharp, and whose every vector does something."""
    config_name, model_name = family.class_names
    config = getattr(transformers, config_name)(**{**BASE, **family.config})
    config._attn_implementation = "eager"  # the plainest of transformers' own
    torch.manual_seed(seed)
    model = getattr(transformers, model_name)(config).eval().float()
    sharpen(model, seed, family.sharpness)
    return model


@torch.no_grad()
def sharpen(model: torch.nn.Module, seed: int = 0, factor: float = 6.0) -> None:
    """Make attention far from uniform, and norms, biases and sinks far from ones and zeros.

    With weights as they are initialised every token attends to every other alike, and neither a
    wrong mask nor a wrong rotation would show.
    """
    generator = torch.Generator().manual_seed(seed)
    for name, weight in model.named_parameters():
        if weight.dim() == 1:
            weight += 0.3 * torch.randn(weight.shape, generator=generator)
        else:
            weight *= factor if any(part in name for part in _ASKS) else 3


def measure(family: Family) -> Row:
    """Build, patch, compare and unpatch."""
    started = time.perf_counter()
    model = build(family)
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(3, BASE["vocab_size"], (_ROWS, _TOKENS), generator=generator)
    whole = torch.ones_like(ids)
    padded = whole.clone()
    padded[1, :_PADDING] = 0
    wanted, own, own_padded = _logits(model, ids), _greedy(model, ids, whole), None
    own_padded = _greedy(model, ids, padded)
    size = float(wanted.abs().max())
    inf_llm.patch(model, type="inf-llm", **FITS, **family.settings)
    measured = {
        "forward": _apart(_logits(model, ids), wanted) / size,
        "greedy": _apart_along(_greedy(model, ids, whole), own) / size,
        "padded": _apart_along(_greedy(model, ids, padded), own_padded) / size,
        "chunked": _apart_along(_greedy(model, ids, padded, 64), own_padded) / size,
    }
    inf_llm.unpatch(model)
    restored = torch.equal(_logits(model, ids), wanted)
    controls: Mapping[str, Mapping[str, Any]] = {
        "small_window": TOO_SMALL,
        "wrong_angles": {**FITS, "distance_scale": 0.5},
    }
    for name, settings in controls.items():
        inf_llm.patch(model, type="inf-llm", **settings, **family.settings)
        measured[name] = _apart(_logits(model, ids), wanted) / size
        inf_llm.unpatch(model)
    return Row(**measured, restored=restored, seconds=time.perf_counter() - started)


def measure_rounded(family: Family, dtype: torch.dtype = torch.bfloat16) -> RoundedRow:
    """Build, and compare the patched and the unpatched model in `dtype` with float32."""
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(3, BASE["vocab_size"], (_ROWS, _TOKENS), generator=generator)
    wanted = _logits(build(family), ids)

    def distance(settings: Mapping[str, Any] | None) -> float:
        model = build(family).to(dtype)
        if settings is not None:
            inf_llm.patch(model, type="inf-llm", **settings, **family.settings)
        return float((_logits(model, ids).float() - wanted).norm() / wanted.norm())

    return RoundedRow(distance(None), distance(FITS), distance(TOO_SMALL))


@torch.no_grad()
def _logits(model: Any, ids: Tensor) -> Tensor:
    return model(ids).logits


def _greedy(model: Any, ids: Tensor, mask: Tensor, chunk: int | None = None) -> tuple[Tensor, Any]:
    """Tokens, and the logits that chose them."""
    options = {} if chunk is None else {"prefill_chunk_size": chunk}
    result = model.generate(
        ids,
        attention_mask=mask,
        max_new_tokens=_NEW,
        do_sample=False,
        output_logits=True,
        return_dict_in_generate=True,
        **options,
    )
    return result.sequences, torch.stack(result.logits)


def _apart(got: Tensor, wanted: Tensor) -> float:
    return float((got - wanted).abs().max())


def _apart_along(got: tuple[Tensor, Any], wanted: tuple[Tensor, Any]) -> float:
    same = torch.equal(got[0], wanted[0])
    return _apart(got[1], wanted[1]) if same else float("inf")


def table(names: Iterable[str] = ()) -> Iterable[str]:
    """The lines of the table, as they are measured."""
    chosen = list(names) or [*WORKING, *REFUSED]
    columns = "forward greedy padded chunked restored | small_window wrong_angles"
    columns += " | bfloat16: own patched | seconds"
    yield f"{'family':20s} {columns}"
    works = refused = 0
    for name in chosen:
        family = {**WORKING, **REFUSED}[name]
        if not exists(family):
            yield f"{name:20s} not in transformers {transformers.__version__}"
            continue
        try:
            row = measure(family)
        except InfLLMError as error:
            refused += 1
            yield f"{name:20s} refused: {error}"
            continue
        except Exception as error:
            yield f"{name:20s} FAILS: {type(error).__name__}: {str(error)[:160]}"
            continue
        works += 1
        near = " ".join(f"{value:.0e}" for value in row.differences.values())
        far = " ".join(f"{value:.2f}" for value in row.controls.values())
        bad = max(row.differences.values()) > TOLERANCE or min(row.controls.values()) < 0.01
        half = measure_rounded(family)
        bad |= not half.right
        note = " <- WRONG" if bad else ""
        rounded = f"{half.own:.0e} {half.patched:.0e}"
        yield f"{name:20s} {near} {row.restored} | {far} | {rounded} | {row.seconds:.1f}{note}"
    yield f"{works} families work, {refused} are refused (transformers {transformers.__version__})"


if __name__ == "__main__":
    transformers.logging.set_verbosity_error()
    torch.set_num_threads(1)  # these models are so small that threads only wait for each other
    for line in table(sys.argv[1:]):
        print(line, flush=True)
