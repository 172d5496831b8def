"""Charts as HTML: shapes stretch with the page, words do not, so they read on a phone as on a wall.

Every function returns a fragment; all text is escaped here and nowhere else.
"""

from __future__ import annotations

import html
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

# Unit shapes around the origin; colour and shape together tell classes apart for any eye.
SHAPES = {
    "circle": '<circle r="5"/>',
    "square": '<rect x="-4.5" y="-4.5" width="9" height="9" rx="1"/>',
    "triangle": '<path d="M0-5.6 5.4 4.2H-5.4Z"/>',
    "diamond": '<path d="M0-6 6 0 0 6-6 0Z"/>',
}
CLASSES = (
    "#4477aa",
    "#ee6677",
    "#228833",
    "#ccab2d",
    "#43b6d9",
    "#aa3377",
    "#ee8033",
    "#8a8a8a",
)  # after P. Tol, "bright"


@dataclass(frozen=True, kw_only=True)
class Style:
    """How one model is drawn everywhere."""

    colour: str  # a CSS colour
    shape: str = "circle"
    own: bool = True  # a model of the user's, not a baseline


@dataclass(frozen=True, kw_only=True)
class Dot:
    """A value with its interval, in data units."""

    name: str
    value: float
    low: float
    high: float


def text(value: object) -> str:
    """Escaped for HTML text and for attributes."""
    return html.escape(str(value).encode("utf-8", "backslashreplace").decode())


def breaking(value: object) -> str:
    """As `text`, with room for a new line after each underscore."""
    return text(value).replace("_", "_<wbr>")


def mark(style: Style) -> str:
    return f'<svg viewBox="-7 -7 14 14" fill="{text(style.colour)}" aria-hidden="true">{SHAPES[style.shape]}</svg>'


def legend(styles: Mapping[str, Style]) -> str:
    items = "".join(f"<li>{mark(style)}{text(name)}</li>" for name, style in styles.items())
    return f'<ul class="legend">{items}</ul>'


def tracks(
    groups: Mapping[str, Sequence[Dot]], styles: Mapping[str, Style], low: float, high: float, scale: float = 100.0
) -> str:
    """One line for each dot: name, dot and whisker on a common axis from `low` to `high`, number."""

    def place(value: float) -> float:
        return 100 * min(1.0, max(0.0, (value - low) / (high - low)))

    parts = []
    for title, dots in groups.items():
        parts.append(f'<div class="group">{text(title)}</div>' if title else "")
        for dot in dots:
            style = styles[dot.name]
            left, right = place(dot.low), place(dot.high)
            interval = f"{scale * dot.low:.1f}–{scale * dot.high:.1f}"
            tip = text(f"{dot.name}\n{scale * dot.value:.1f}, 95 % interval {interval}")
            parts.append(
                f'<div class="name{" own" * style.own}" title="{text(dot.name)}">{text(dot.name)}</div>'
                f'<div class="track" data-tip="{tip}">'
                f'<i style="left:{left:.2f}%;width:{right - left:.2f}%;background:{style.colour}"></i>'
                f'<span class="at" style="left:{place(dot.value):.2f}%">{mark(style)}</span></div>'
                f'<div class="value">{scale * dot.value:.1f}<small>{interval}</small></div>'
            )
    return f'<div class="tracks">{"".join(parts)}{_axis(low, high, scale)}</div>'


def dots(groups: Mapping[str, Sequence[Dot]], styles: Mapping[str, Style]) -> str:
    """One line for each group, its dots on one axis from 0 to 1; the first dot's number beside it."""
    parts = []
    for title, row in groups.items():
        marks = ""
        for dot in reversed(row):  # the first lies on top
            tip = text(f"{title}\n{dot.name} {100 * dot.value:.0f}")
            at = f"left:{100 * dot.value:.2f}%"
            marks += f'<span class="at" style="{at}" data-tip="{tip}">{mark(styles[dot.name])}</span>'
        parts.append(
            f'<div class="name">{text(title)}</div><div class="track">{marks}</div>'
            f'<div class="value">{100 * row[0].value:.0f}</div>'
        )
    return f'<div class="tracks">{"".join(parts)}{_axis(0.0, 1.0, 100.0)}</div>'


def lines(
    x: Float[np.ndarray, " n"],
    series: Mapping[str, Float[np.ndarray, " n"]],
    *,
    colours: Sequence[str] = ("var(--s0)", "var(--s1)", "var(--s2)", "var(--s3)"),
    unit: str = "step",
    tall: bool = False,
) -> str:
    """Curves over a common x, each with a smooth line over its raw one; values that are not finite leave gaps."""
    known = np.concatenate([y[np.isfinite(y)] for y in series.values()])
    if not len(known) or not len(x):
        return ""
    low, high = _bounds(known)
    left, right = float(x[0]), float(max(x[-1], x[0] + 1e-9))
    paths = []
    for y, colour in zip(series.values(), _cycle(colours)):
        smooth = _smooth(y)
        if len(y) > 20:
            paths.append(f'<path class="raw" stroke="{colour}" d="{_path(x, y, left, right, low, high)}"/>')
            y = smooth
        paths.append(f'<path stroke="{colour}" d="{_path(x, y, left, right, low, high)}"/>')
    rules = "".join(
        f'<hr style="top:{100 * (1 - (v - low) / (high - low)):.2f}%">'
        f'<span class="y" style="top:{100 * (1 - (v - low) / (high - low)):.2f}%">{_short(v)}</span>'
        for v in _ticks(low, high)
    )
    across = [round(left + (right - left) * k / 4, 0 if right - left >= 4 else 2) for k in range(5)]
    marks = "".join(
        f'<span class="x" style="left:{25 * k}%">{_short(v)}{f" {unit}" if k == 4 else ""}</span>'
        for k, v in enumerate(across)
        if k % 2 == 0
    )
    body = f'<svg viewBox="0 0 1000 1000" preserveAspectRatio="none" aria-hidden="true">{"".join(paths)}</svg>'
    return f'<div class="plot{" tall" * tall}">{rules}{body}{marks}</div>'


def scatter(
    points: Float[np.ndarray, "n 2"], groups: Sequence[str], names: Sequence[str], *, height: float = 0.56
) -> str:
    """Points with a legend that singles out one group; hovering names a point."""
    low, span = points.min(0), np.maximum(np.ptp(points, axis=0), 1e-12)
    at = (points - low) / span * [960, 1000 * height - 40] + 20
    order = sorted(set(groups))
    styles = class_styles(order)
    layers = []
    for k, group in enumerate(order):
        uses = "".join(
            f'<use href="#shape-{styles[group].shape}" x="{at[i, 0]:.1f}" y="{at[i, 1]:.1f}" '
            f'data-tip="{text(f"{group}{chr(10)}{names[i]}")}"/>'
            for i in range(len(at))
            if groups[i] == group
        )
        layers.append(f'<g data-class="{k}" fill="{styles[group].colour}">{uses}</g>')
    shapes = "".join(f'<g id="shape-{name}">{shape}</g>' for name, shape in SHAPES.items())
    buttons = "".join(
        f'<li><button type="button" data-class="{k}" aria-pressed="false">{mark(styles[g])}{text(g)}</button></li>'
        for k, g in enumerate(order)
    )
    return (
        f'<div class="map"><ul class="legend">{buttons}</ul>'
        f'<svg viewBox="0 0 1000 {1000 * height:.0f}" role="img" aria-label="embedding map">'
        f"<defs>{shapes}</defs>{''.join(layers)}</svg></div>"
    )


def class_styles(names: Sequence[str]) -> dict[str, Style]:
    """Eight colours by four shapes: 32 groups that differ in one or the other."""
    shapes = list(SHAPES)
    return {
        name: Style(colour=CLASSES[k % len(CLASSES)], shape=shapes[k // len(CLASSES) % len(shapes)])
        for k, name in enumerate(names)
    }


def confusion(counts: Int[np.ndarray, "c c"], classes: Sequence[str]) -> str:
    """True classes down, guesses across; the shade is the share of the true class."""
    size = " dense" if len(classes) > 20 else " snug" if len(classes) > 10 else ""
    head = "".join(f"<th><span>{text(name)}</span></th>" for name in classes)
    rows = []
    for name, row in zip(classes, counts):
        total = max(1, int(row.sum()))
        cells = "".join(
            f'<td class="{"zero" if not n else "hot" if n / total > 0.55 else ""}" style="--p:{100 * n / total:.0f}" '
            f'data-tip="{text(f"{name} → {guess}{chr(10)}{n} of {total}")}">{n}</td>'
            for guess, n in zip(classes, row.tolist())
        )
        rows.append(f"<tr><th>{text(name)}</th>{cells}</tr>")
    return (
        f'<div class="scroll"><table class="confusion{size}"><thead><tr><th></th>{head}</tr></thead>'
        f"<tbody>{''.join(rows)}</tbody></table></div>"
    )


def facts(pairs: Mapping[str, object]) -> str:
    return (
        "<dl>" + "".join(f"<dt>{text(k)}</dt><dd>{text(v)}</dd>" for k, v in pairs.items() if v is not None) + "</dl>"
    )


def _axis(low: float, high: float, scale: float) -> str:
    ticks = [f'<span style="left:{25 * k}%">{_short(scale * (low + (high - low) * k / 4))}</span>' for k in range(5)]
    return f'<div></div><div class="ticks">{"".join(ticks)}</div><div></div>'


def floor(values: Iterable[float]) -> float:
    """Where an axis up to 1 begins: at a fifth or at zero, so that the lowest value has room."""
    least = min(values, default=0.0) - 0.02
    return max(k for k in (0.0, 0.2, 0.4, 0.6, 0.8) if k <= max(least, 0.0))


def _path(x: np.ndarray, y: np.ndarray, left: float, right: float, low: float, high: float, points: int = 800) -> str:
    """SVG path data in a box of 1000 by 1000, thinned to `points`."""
    keep = np.unique(np.linspace(0, len(x) - 1, min(len(x), points)).round().astype(int))
    out, pen = [], "M"
    for a, b in zip(x[keep], y[keep]):
        if math.isfinite(b):
            across, down = (
                1000 * (a - left) / (right - left),
                1000 * (1 - (min(max(b, low), high) - low) / (high - low)),
            )
            out.append(f"{pen}{across:.0f} {down:.0f}")
            pen = "L"
        else:
            pen = "M"
    return "".join(out)


def _smooth(y: np.ndarray, share: float = 0.02) -> np.ndarray:
    """A centred running mean over `share` of the curve, gaps left out."""
    half = max(1, int(len(y) * share))
    known = np.isfinite(y)
    total = np.cumsum(np.concatenate([[0.0], np.where(known, y, 0.0)]))
    count = np.cumsum(np.concatenate([[0], known]))
    low, high = np.maximum(np.arange(len(y)) - half, 0), np.minimum(np.arange(len(y)) + half + 1, len(y))
    many = count[high] - count[low]
    return np.divide(total[high] - total[low], many, out=np.full(len(y), np.nan), where=many > 0)


def _bounds(values: np.ndarray) -> tuple[float, float]:
    """The range of the curves without their wildest percent, which is cut off at the edge."""
    low, high = np.percentile(values, [0.5, 99.5])
    room = 0.06 * (high - low) or 0.1 * abs(high) or 1.0
    return float(low - room), float(high + room)


def _ticks(low: float, high: float, most: int = 5) -> list[float]:
    """Round values between the bounds, `most` at the most."""
    step = 10.0 ** math.floor(math.log10((high - low) / most))
    step *= next((k for k in (1, 2, 5, 10, 20) if (high - low) / (step * k) <= most), 50)
    return [k * step for k in range(math.ceil(low / step), math.floor(high / step) + 1)]


def _short(value: float) -> str:
    """A number in few characters: 12k, 0.05, 3e-4."""
    if value and abs(value) < 0.001:
        return f"{value:.0e}".replace("e-0", "e-")
    if abs(value) >= 10_000:
        return f"{value / 1000:.4g}k"
    return f"{value:.4g}"


def _cycle(colours: Sequence[str]) -> Iterable[str]:
    while True:
        yield from colours
