"""Pictures of the keys that tokens see: characters for a terminal, PNG and SVG with matplotlib.

The palette is that of Okabe and Ito, whose colours people with any colour vision can distinguish;
within a colour, dark is near and light is far.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from inf_llm.checks import field_types
from inf_llm.config import RunConfig, load_config
from inf_llm.errors import SettingsError
from inf_llm.optional import drawn, need
from inf_llm.picture.measure import KINDS, WINDOW, Sight, measure
from inf_llm.settings import OriginSettings, settings_class
from inf_llm.units import short
from inf_llm.variants import ATTENTION

COLOURS = ("#ffffff", "#0072b2", "#e69f00", "#009e73", "#cc79a7")
GLYPHS = " █▓▒░"
SUFFIXES = (".png", ".svg")
_LIGHTEST = 0.66  # share of white in the farthest cell of a colour


def visualize(
    config: Any,
    length: int = 2048,
    out: str | Path | None = None,
    *,
    all_types: bool = False,
    width: int = 64,
) -> str:
    """Draw the keys that each token can attend to, measured on the attention objects themselves.

    Args:
        config: a configuration, its file, or attention settings.
        length: tokens of the text.
        out: a PNG or SVG file to write; None for the drawing in characters only.
        all_types: draw all four attention types, with the sizes of the given one where they apply.
        width: characters across one drawing in a terminal.

    Returns:
        The drawing in characters, with the colours of a terminal.

    Raises:
        SettingsError: the length or the file's suffix cannot be drawn.
        MissingExtraError: matplotlib, which draws files, is not installed.
    """
    settings = _settings(config)
    file = None if out is None else Path(out)
    if file is not None and file.suffix.lower() not in SUFFIXES:
        raise SettingsError(
            f"out = {str(out)!r} has a suffix that cannot be drawn; accepted: {', '.join(SUFFIXES)}"
        )
    chosen = [_like(settings, name) for name in ATTENTION] if all_types else [settings]
    if file is not None:
        _save([measure(one, length) for one in chosen], file)
    return "\n".join(in_characters(measure(one, length, width)) for one in chosen)


def _settings(config: Any) -> OriginSettings:
    if not isinstance(config, OriginSettings | RunConfig):
        config = load_config(config)
    return config.attention if isinstance(config, RunConfig) else config


def _like(settings: OriginSettings, name: str) -> OriginSettings:
    """Return settings of another type, with the values of the fields that both types have."""
    cls = settings_class(name)
    if type(settings) is cls:
        return settings
    shared = field_types(cls).keys() & field_types(type(settings)).keys()
    return cls(**{key: getattr(settings, key) for key in shared})


def shades(sight: Sight, farthest: int) -> Tensor:
    """Return colours (n, n, 3) from 0 to 1; they get lighter up to the distance `farthest`."""
    palette = torch.tensor([[int(c[i : i + 2], 16) / 255 for i in (1, 3, 5)] for c in COLOURS])
    colour = palette[sight.kind.long()]
    share = (sight.distance.clamp(min=0) / max(1, farthest)).sqrt()[..., None]
    return colour + (1 - colour) * _LIGHTEST * share.clamp(max=1)


def in_characters(sight: Sight) -> str:
    """Draw for a terminal: a glyph shows why a key is seen, its shade how far away it seems."""
    from rich.console import Console
    from rich.style import Style
    from rich.text import Text

    farthest = int(sight.distance.max())
    colours = (shades(sight, farthest) * 255).round().int().tolist()
    text = Text(f"{sight.settings.type}: {sight.length:,} tokens, one cell is {sight.stride}\n")
    for row in range(0, len(sight.kind), 2):  # a character is twice as high as it is wide
        for column, kind in enumerate(sight.kind[row].tolist()):
            red, green, blue = colours[row][column]
            style = Style(color=f"rgb({red},{green},{blue})") if kind else Style()
            text.append(GLYPHS[kind], style)
        text.append("\n")
    present = sorted(set(sight.kind.flatten().tolist()) - {0})
    for kind in present:
        text.append(f"{GLYPHS[kind]} {_name(sight, kind)}  ", Style(color=COLOURS[kind]))
    console = Console(width=max(100, len(sight.kind) + 1), force_terminal=None)
    with console.capture() as captured:
        console.print(text, soft_wrap=True)
    return captured.get()


def _name(sight: Sight, kind: int) -> str:
    if kind == WINDOW and sight.settings.type == "origin":
        return "all before"
    return KINDS[kind]


def _save(sights: Sequence[Sight], file: Path) -> None:
    matplotlib = need("matplotlib", f"drawing {file}", "plot")
    style: Any = {"font.size": 9, "svg.fonttype": "none", "font.family": "DejaVu Sans"}
    wide = max(2.75 * len(sights) + 0.6, 4.2)
    how: dict[str, Any] = {"figsize": (wide, 4.1), "sharey": True, "dpi": 110}
    with (
        matplotlib.rc_context(style),
        drawn("the picture", file, len(sights), **how) as (figure, axes),
    ):
        farthest = max(int(sight.distance.max()) for sight in sights)
        for axis, sight in zip(axes, sights, strict=True):
            _panel(axis, sight, farthest)
        axes[0].set_ylabel("query (token that looks)")
        _legend(figure, sights, farthest)
        figure.subplots_adjust(left=0.62 / wide, right=0.99, top=0.92, bottom=0.27)
        figure.subplots_adjust(wspace=0.08)


def _panel(axis: Any, sight: Sight, farthest: int) -> None:
    axis.imshow(
        shades(sight, farthest).numpy(),
        extent=(0, sight.length, sight.length, 0),
        interpolation="nearest",
    )
    axis.set_title(sight.settings.type, fontweight="bold", fontsize=11)
    axis.set_xlabel("key (token looked at)")
    ticks = [sight.length * part // 4 for part in range(4)]
    axis.set_xticks(ticks, [short(tick) for tick in ticks])
    axis.set_yticks(ticks, [short(tick) for tick in ticks])
    axis.tick_params(length=2, colors="#444444")
    for spine in axis.spines.values():
        spine.set_color("#999999")


def _legend(figure: Any, sights: Sequence[Sight], farthest: int) -> None:
    """Draw one strip per colour, from dark (near) to light (far)."""
    from matplotlib.colors import LinearSegmentedColormap

    kinds = sorted({kind for sight in sights for kind in sight.kind.unique().tolist()} - {0})
    width, left = 0.92 / len(kinds), 0.05
    for number, kind in enumerate(kinds):
        strip = figure.add_axes((left + number * width, 0.075, 0.8 * width, 0.03))
        colour = torch.tensor([int(COLOURS[kind][i : i + 2], 16) / 255 for i in (1, 3, 5)])
        share = torch.linspace(0, 1, 64).sqrt()[:, None]
        ramp = (colour + (1 - colour) * _LIGHTEST * share).tolist()
        strip.imshow([range(64)], aspect="auto", cmap=LinearSegmentedColormap.from_list("", ramp))
        strip.set_title(_of_all(sights, kind), fontsize=9, loc="left", pad=3)
        strip.set_yticks([])
        strip.set_xticks([0, 63], ["seems near", f"{short(farthest)} away"])
        strip.get_xticklabels()[0].set_horizontalalignment("left")
        strip.get_xticklabels()[1].set_horizontalalignment("right")
        strip.tick_params(length=0, labelsize=8, colors="#444444")
        for spine in strip.spines.values():
            spine.set_visible(False)


def _of_all(sights: Sequence[Sight], kind: int) -> str:
    only_origin = all(sight.settings.type == "origin" for sight in sights)
    return "all before" if kind == WINDOW and only_origin else KINDS[kind]
