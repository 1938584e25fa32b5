"""The settings that all attention types share, and the settings of types with a local window."""

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
    """Full attention, with the model's rotary positions unchanged or rescaled.

    Attributes:
        base: RoPE base; None keeps the base of the model. A larger base is "NTK" scaling.
        distance_scale: factor on every position; a factor below 1 is linear position interpolation.
        scaling: rule that stretches positions: "linear", "ntk" or "yarn"; see `inf_llm.scaling`.
        fattn: require a fused kernel such as FlashAttention, instead of falling back to the
            reference kernel if no fused kernel supports the inputs; `origin` on CUDA then uses
            flash-attn if it is installed.
        kernel: the attention kernel; "auto" picks the fastest kernel that supports the inputs.
            "fused" is for CPUs; "triton", "varlen" and "flash-attn" are for CUDA.
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
        """The settings that are set and name a row of a registry, with their registries."""
        given = self.choices.items()
        return [(key, registry) for key, registry in given if getattr(self, key) is not None]

    @property
    def kernel_asked(self) -> str:
        """The kernel to compute with; "flash" means any kernel but the reference."""
        return "flash" if self.fattn and self.kernel == "auto" else self.kernel

    @property
    def moves_positions(self) -> bool:
        """Whether these settings change the model's own rotary positions."""
        unchanged = self.base is None and self.distance_scale == 1
        return not unchanged or self.scaling.name != "none"

    @property
    def sees(self) -> int | None:
        """The largest number of tokens that a query attends to; None for no limit."""
        return None

    def for_layer(self, index: int) -> OriginSettings:
        """The settings of one layer, counted from 0."""
        return self


@dataclass(frozen=True)
class WindowSettings(OriginSettings):
    """Sinks and a local window; no other token is kept.

    Attributes:
        n_init: number of sinks, the first tokens of a row, which are never evicted.
        n_local: length of the local window in tokens; a token attends to itself and to the
            n_local - 1 tokens before it.
        native_window: for layers that were trained with a sliding window: "keep" leaves these
            layers as they are; "override" gives the memory to these layers too.
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
