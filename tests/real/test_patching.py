"""Real checkpoints in every number format: patched, and saying what they said before."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

import inf_llm
from tests.real.models import DTYPES, FITTING, LONG, MODELS, prose

Lend = Callable[[str, str], Any]
NEW = 24
KINDS = ("infinite-lm", "stream-lm", "inf-llm")


@pytest.mark.parametrize("kind", LONG)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", MODELS)
def test_patched_without_a_warning(
    lent: Lend, caplog: pytest.LogCaptureFixture, name: str, dtype: str, kind: str
) -> None:
    model = lent(name, dtype)
    with warnings.catch_warnings(), caplog.at_level(logging.WARNING):
        warnings.simplefilter("error")
        inf_llm.patch(model, type=kind, **LONG[kind])
        model.generate(torch.tensor([prose(name, 40)]), max_new_tokens=2, do_sample=False)
    assert not caplog.records


def _continued(model: Any, ids: Tensor) -> Tensor:
    """The prompt and what the model says next, greedily."""
    mask = torch.ones_like(ids)
    return model.generate(ids, attention_mask=mask, max_new_tokens=NEW, do_sample=False)


def _skip_if_it_overflows(made: Tensor) -> None:
    """Some models have activations that float16 cannot hold, as Gemma's: nothing is right then."""
    if not bool(made.isfinite().all()):
        pytest.skip(f"the unpatched model overflows in {made.dtype}")


@torch.no_grad()
def _certain(model: Any, text: Tensor, prompt: int) -> int:
    """New tokens about which the unpatched model's own sdpa and eager leave no doubt.

    Doubt begins where the two choose differently, or where the best is ahead of the runner-up by
    less than that lead ever differs between the two: then rounding decides.
    """
    leads, best = [], None
    for attention in ("sdpa", "eager"):
        model.set_attn_implementation(attention)
        logits = model(text).logits[0, prompt - 1 : -1]
        _skip_if_it_overflows(logits)
        logits = logits.float()
        best = logits.topk(2).indices if best is None else best
        leads.append(logits.gather(1, best[:, :1]) - logits.gather(1, best[:, 1:]))
    noise = (leads[0] - leads[1]).abs().max()
    sure = (leads[0] > noise) & (leads[1] > noise)
    return int(sure.long().cumprod(0).sum())


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", MODELS)
def test_greedy_answers_are_those_of_the_unpatched_model(lent: Lend, name: str, dtype: str) -> None:
    """A text begun once more goes on with little doubt, where attention reaches what it repeats."""
    model = lent(name, dtype)
    ids = torch.tensor([prose(name, 200) + prose(name, 100)])
    model.set_attn_implementation("sdpa")
    wanted = _continued(model, ids)
    certain = _certain(model, wanted, ids.shape[1])
    model.set_attn_implementation("sdpa")
    for kind in KINDS:
        inf_llm.patch(model, type=kind, **FITTING[kind])
        got = _continued(model, ids)
        inf_llm.unpatch(model)
        agreed = _shared(got, wanted) - ids.shape[1]
        print(f"{name} {dtype} {kind}: {agreed} of {NEW} new tokens equal, {certain} certain")
        assert agreed >= certain
    assert certain >= NEW // 2, "the text leaves too much in doubt to show anything"
    inf_llm.patch(model, type="stream-lm", n_init=0, n_local=32)  # a control that must differ
    assert _shared(_continued(model, ids), wanted) - ids.shape[1] < certain


def _shared(a: Tensor, b: Tensor) -> int:
    """Tokens that two rows (1, n) begin with."""
    length = min(a.shape[1], b.shape[1])
    return int((a[0, :length] == b[0, :length]).long().cumprod(0).sum())


class _Layers:
    """What a model's attention modules make of the hidden states given, layer by layer.

    Without hidden states the model's own are noted, in `inputs`. With them, every layer starts from
    what another model had there, so that differences do not add up from layer to layer.
    """

    def __init__(self, inputs: list[Tensor] | None = None) -> None:
        self.inputs: list[Tensor] = []
        self.outputs: list[Tensor] = []
        self._given = inputs

    @torch.no_grad()
    def run(self, model: Any, ids: Tensor) -> list[Tensor]:
        layers = model.get_decoder().layers
        hooks = [
            layer.register_forward_pre_hook(self._before, with_kwargs=True) for layer in layers
        ]
        hooks += [layer.self_attn.register_forward_hook(self._after) for layer in layers]
        try:
            model(ids, use_cache=True)
        finally:
            for hook in hooks:
                hook.remove()
        return self.outputs

    def _before(self, layer: Any, args: Any, kwargs: Any) -> Any:
        if self._given is not None:
            args = (self._given[len(self.inputs)], *args[1:])
        self.inputs.append(args[0].clone())
        return args, kwargs

    def _after(self, module: Any, args: Any, output: Any) -> None:
        self.outputs.append(output[0].clone())


def _apart(got: Tensor, wanted: Tensor) -> float:
    """Root mean square of the difference, over that of what is wanted."""
    return float((got.float() - wanted.float()).norm() / wanted.float().norm())


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
@pytest.mark.parametrize("name", MODELS)
def test_no_layer_differs_more_than_the_models_own_two(lent: Lend, name: str, dtype: str) -> None:
    """On the same hidden states, layer by layer, while the text fits.

    A patched layer is as near to the unpatched sdpa as the unpatched eager is, and as near to
    attention in float32 as the worse of the two. The figures are printed. There is no allowance
    but a twentieth for the second, where all three round the same rotated queries and keys.
    """
    model = lent(name, dtype)
    ids = torch.tensor([prose(name, 300)])
    model.set_attn_implementation("sdpa")
    own = _Layers()
    outputs = {"sdpa": own.run(model, ids)}
    _skip_if_it_overflows(outputs["sdpa"][-1])
    model.set_attn_implementation("eager")
    outputs["eager"] = _Layers(own.inputs).run(model, ids)
    model.set_attn_implementation("sdpa")
    narrow = {"type": "stream-lm", "n_init": 0, "n_local": 64}  # a control that must be seen
    for kind, given in {
        "ours": {"type": "inf-llm", **FITTING["inf-llm"]},
        "narrow": narrow,
    }.items():
        inf_llm.patch(model, **given)
        outputs[kind] = _Layers(own.inputs).run(model, ids)
        inf_llm.unpatch(model)
    wide = lent(name, "float32")
    wide.set_attn_implementation("eager")
    exact = _Layers([x.float() for x in own.inputs]).run(wide, ids)
    errors = {
        kind: [_apart(a, b) for a, b in zip(made, exact, strict=True)]
        for kind, made in outputs.items()
    }
    print(f"{name} {dtype}: error against float32 (sdpa, eager, patched); apart from sdpa")
    for layer, reference in enumerate(outputs["sdpa"]):
        sdpa, eager, ours = (errors[kind][layer] for kind in ("sdpa", "eager", "ours"))
        eager_apart, apart = (_apart(outputs[kind][layer], reference) for kind in ("eager", "ours"))
        print(
            f"  layer {layer:2}: {sdpa:.5f} {eager:.5f} {ours:.5f}; eager {eager_apart:.5f}, "
            f"patched {apart:.5f}"
        )
        assert apart <= eager_apart
        assert ours <= 1.05 * max(sdpa, eager)
    assert max(errors["narrow"]) > 5 * max(errors["eager"])


@pytest.mark.parametrize("name", MODELS)
def test_ragged_prompts_in_a_batch_say_what_they_say_alone(lent: Lend, name: str) -> None:
    """Left padded, past the window; in float32, where no batch rounds another way."""
    model = inf_llm.patch(lent(name, "float32"), type="inf-llm", **LONG["inf-llm"])
    prompts = [prose(name, count, start) for count, start in ((1100, 0), (40, 5000), (700, 9000))]
    longest = max(map(len, prompts))
    pad = model.config.get_text_config().eos_token_id
    pad = pad[0] if isinstance(pad, list) else pad or 0
    ids = torch.tensor([[pad] * (longest - len(p)) + p for p in prompts])
    mask = torch.tensor([[0] * (longest - len(p)) + [1] * len(p) for p in prompts])
    options = {"max_new_tokens": 12, "do_sample": False, "pad_token_id": pad, "eos_token_id": None}
    together = model.generate(ids, attention_mask=mask, **options)[:, longest:]
    for row, prompt in enumerate(prompts):
        one = torch.tensor([prompt])
        alone = model.generate(one, attention_mask=torch.ones_like(one), **options)
        assert together[row].tolist() == alone[0, len(prompt) :].tolist(), f"row {row}"
