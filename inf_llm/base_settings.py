"""What settings of every attention type have in common, and those of types with a window."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from inf_llm.checks import at_least, one_of, require, typed
from inf_llm.choice import Choice
from inf_llm.registry import Registry
from inf_llm.variants import KERNEL, SCALING

NATIVE_WINDOW = ("keep", "override")
_UNSCALED = Choice("none")


@dataclass(frozen=True)
class OriginSettings:
    """Full attention, with the model's rotary positions left alone or rescaled.

    Attributes:
        base: RoPE base; the model's own where it is None. A larger one is "NTK" scaling.
        distance_scale: factor on every position; below 1 it is linear position interpolation.
        scaling: rule that stretches positions: "linear", "ntk" or "yarn"; see `inf_llm.scaling`.
        fattn: insist on a fused kernel of FlashAttention's kind, instead of falling back to the
            plain one where none can do it; `origin` on CUDA uses flash-attn if it is installed.
        kernel: which attention kernel computes; "auto" picks the fastest one that can. "fused" is
            for CPUs, "triton", "varlen" and "flash-attn" are for CUDA.
    """

    type: ClassVar[str] = "origin"
    choices: ClassVar[Mapping[str, Registry]] = {"scaling": SCALING}

    base: float | None = None
    distance_scale: float = 1.0
    scaling: Choice = _UNSCALED
    fattn: bool = False
    kernel: str = "auto"

    def __post_init__(self) -> None:
        for key, registry in self._chosen():
            choice = Choice.of(key, getattr(self, key))
            choice.check(key, registry)
            object.__setattr__(self, key, choice)
        typed(self)
        require(
            self.base is None or self.base > 1,
            "base",
            f"base = {self.base} is too small: more than 1 is needed",
        )
        require(
            self.distance_scale > 0,
            "distance_scale",
            f"distance_scale = {self.distance_scale} is not allowed: more than 0 is needed",
        )
        require(
            self.scaling.name != "linear" or self.distance_scale == 1,
            "distance_scale",
            f"distance_scale = {self.distance_scale} says the same as scaling = 'linear': "
            "leave one out",
        )
        one_of(self, "kernel", ("auto", *KERNEL))
        require(
            not (self.fattn and self.kernel == "reference"),
            "kernel",
            "kernel = 'reference' contradicts fattn = true: "
            "set fattn to false, or kernel to 'auto'",
        )

    def _chosen(self) -> list[tuple[str, Registry]]:
        """The settings that choose a row, with their registries."""
        given = self.choices.items()
        return [(key, registry) for key, registry in given if getattr(self, key) is not None]

    @property
    def kernel_asked(self) -> str:
        """The kernel to compute with; "flash" is any but the plain one."""
        return "flash" if self.fattn and self.kernel == "auto" else self.kernel

    @property
    def moves_positions(self) -> bool:
        """Whether a model's own rotary positions are changed."""
        own = self.base is None and self.distance_scale == 1
        return not own or self.scaling.name != "none"

    @property
    def sees(self) -> int | None:
        """Most tokens that a query can see; None for all there are."""
        return None

    def for_layer(self, index: int) -> OriginSettings:
        """The settings of one layer, counted from 0."""
        return self


@dataclass(frozen=True)
class WindowSettings(OriginSettings):
    """Sinks and a local window; nothing else is kept.

    Attributes:
        n_init: number of sinks, the first tokens of a row, which are never forgotten.
        n_local: length of the local window in tokens; a token sees itself and n_local - 1 before.
        native_window: "keep" leaves layers with a sliding window of their own as they were
            trained; "override" gives them the memory too.
    """

    n_init: int = 128
    n_local: int = 4096
    native_window: str = "keep"

    def __post_init__(self) -> None:
        super().__post_init__()
        at_least(self, 0, "n_init")
        at_least(self, 1, "n_local")
        one_of(self, "native_window", NATIVE_WINDOW)

    @property
    def sees(self) -> int:
        """See `OriginSettings.sees`."""
        return self.n_init + self.n_local
