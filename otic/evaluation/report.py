"""`report.html`: one file that shows a run; it asks the network for nothing and opens anywhere.

A section is a title and a piece of HTML. Each function here makes one from data and returns None when there is none,
and `write` puts together what it is given.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool, Float

import otic
from otic.core.files import write_text
from otic.core.machine import commit, machine
from otic.engine.log import read_log
from otic.evaluation import charts
from otic.evaluation.charts import text
from otic.evaluation.png import picture

COUNTERS = ("clips", "seconds", "time", "epoch")  # of a log: they only rise
RUNNING = {
    "lr": ("learning rate", ""),
    "grad_norm": ("gradient norm", "before clipping"),
    "clips_per_second": ("speed", "clips per second"),
    "waited": ("waiting for data", "share of the time"),
}  # numbers of every log: title and unit
HEALTH = {
    "patch_std": ("spread of patches", "standard deviation"),
    "patch_rank": ("rank of patches", "effective dimensions"),
    "patch_cosine": ("likeness of patches", "mean cosine"),
    "feature_std": ("spread of clips", "standard deviation"),
    "effective_rank": ("rank of clips", "effective dimensions"),
    "pair_cosine": ("likeness of clips", "mean cosine"),
}  # numbers of engine/health.py


@dataclass(frozen=True, kw_only=True)
class Section:
    """A card of the report."""

    title: str
    body: str  # HTML, already escaped
    lead: str = ""  # a sentence of plain text under the title


def write(path: str | Path, title: str, *sections: Section | None, summary: str = "") -> None:
    """Write the report, atomically.

    Args:
        summary: One sentence in plain text: what came out.
        sections: Cards from top to bottom; None is skipped.
    """
    here = files("otic.evaluation")
    style, script = (here.joinpath(name).read_text(encoding="utf-8") for name in ("report.css", "report.js"))
    now, where = datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"), machine()
    policy = "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; img-src data:; media-src data:"
    facts = [
        now,
        commit() and f"commit {commit()}",
        where["gpu"] or f"{where['cores']} core{'s' * (where['cores'] != 1)}, {where['cpu']}",
    ]
    eyebrow = "".join(f"<span>{text(fact)}</span>" for fact in facts if fact)
    cards = "\n".join(_card(section) for section in sections if section)
    write_text(
        path,
        f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>{text(title)}</title>
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="{text(policy)}">
<link rel="icon" href="data:,"><style>
{style}</style></head><body><main>
<header><p class="eyebrow"><b>otic {text(otic.__version__)}</b>{eyebrow}</p>
<h1>{text(title)}</h1><p class="summary">{text(summary)}</p></header>
{cards}
</main><script>
{script}</script></body></html>
""",
    )


def _card(section: Section) -> str:
    lead = f'<p class="lead">{text(section.lead)}</p>' if section.lead else ""
    return f"<section><h2>{text(section.title)}</h2>\n{lead}{section.body}</section>"


def curves(records: Sequence[Mapping[str, Any]] | str | Path) -> Section | None:
    """The loss large, its parts small, then how the run went; the features' health has a card of its own.

    Args:
        records: The lines of a run's `log.jsonl`, or the file. Numbers are drawn, one level of nesting is opened.
    """
    rows = _rows(records)
    if len(rows) < 2:
        return None
    own = ("step", "loss", *COUNTERS, *RUNNING, *HEALTH)
    parts = {n: (n.replace("_", " "), "") for n in dict.fromkeys(n for r in rows for n in r) if n not in own}
    x = np.array([r["step"] for r in rows], dtype=float)
    body = charts.lines(x, {"loss": _column(rows, "loss")}, tall=True)
    body += _panels(rows, parts, "What the objective reports") + _panels(rows, RUNNING, "Optimiser and speed")
    return Section(title="Training", body=body, lead="The loss over the optimiser steps, raw and as a running mean.")


def health(records: Sequence[Mapping[str, Any]] | str | Path) -> Section | None:
    """Whether the features told clips apart all the while: curves of what the log has now and then.

    Args:
        records: As in `curves`.
    """
    body = _panels(_rows(records), HEALTH)
    lead = (
        "Do the features still tell clips apart? Measured on the same whole clips now and then. A rank or a spread "
        "that falls towards 0, or a cosine that rises to 1, is a collapse. Patches are compared at the same place of "
        "two clips, clips by their mean over patches."
    )
    return Section(title="Health of the features", body=body, lead=lead) if body else None


def _panels(rows: Sequence[Mapping[str, float]], names: Mapping[str, tuple[str, str]], group: str = "") -> str:
    """A small chart for each number that moves, over the steps that have it."""
    panels = []
    for name, (title, unit) in names.items():
        y = _column(rows, name)
        known = np.isfinite(y)
        if known.sum() > 1 and np.ptp(y[known]) > 0:
            x = np.array([r["step"] for r in rows], dtype=float)[known]
            heading = f"{text(title)} <small>{text(unit)}</small>" if unit else text(title)
            panels.append(f"<div><h3>{heading}</h3>{charts.lines(x, {name: y[known]})}</div>")
    label = f'<p class="part">{text(group)}</p>' if group else ""
    return f'<div class="panels block">{label}{"".join(panels)}</div>' if panels else ""


def _rows(records: Sequence[Mapping[str, Any]] | str | Path) -> list[dict[str, float]]:
    rows = [_flat(r) for r in (read_log(records) if isinstance(records, str | Path) else records)]
    return [r for r in rows if "step" in r and "loss" in r]


def _flat(record: Mapping[str, Any]) -> dict[str, float]:
    """The numbers of a record, one level of nesting opened."""
    out: dict[str, float] = {}
    for key, value in record.items():
        inner = value if isinstance(value, Mapping) else {key: value}
        out |= {k: float(v) for k, v in inner.items() if isinstance(v, int | float) and not isinstance(v, bool)}
    return out


def _column(rows: Sequence[Mapping[str, float]], name: str) -> Float[np.ndarray, " n"]:
    return np.array([r.get(name, np.nan) for r in rows], dtype=float)


@dataclass(frozen=True, kw_only=True)
class Masked:
    """A clip as the objective saw it."""

    name: str
    seconds: float  # of the whole picture
    spec: Float[np.ndarray, "t f"]  # the front-end's output
    visible: Bool[np.ndarray, "tp fp"]  # the patches shown; a patch covers t / tp frames and f / fp bands
    guess: Float[np.ndarray, "t2 f2"] | None = None  # what was predicted, spectrogram or one number per patch
    guess_name: str = "prediction"


def masked(examples: Sequence[Masked]) -> Section | None:
    """Spectrograms, what was left of them, and what was predicted."""
    if not examples:
        return None
    body = "".join(f"<div><h3>{text(e.name)}</h3>{_pictures(e)}</div>" for e in examples)
    lead = "Grey patches were hidden; the prediction is of these. Low bands are at the bottom."
    return Section(title="What the model sees", body=f'<div class="two">{body}</div>', lead=lead)


def _pictures(example: Masked) -> str:
    low, high = (float(np.percentile(example.spec, q)) for q in (1, 99.5))
    (frames, bands), (columns, rows) = example.spec.shape, example.visible.shape
    shown = np.repeat(np.repeat(example.visible, frames // columns, 0), bands // rows, 1)
    left = example.spec[: shown.shape[0], : shown.shape[1]]
    views = [("spectrogram", picture(left, low, high)), ("visible", picture(np.where(shown, left, np.nan), low, high))]
    if example.guess is not None:
        alike = example.guess.shape == left.shape
        views.append((example.guess_name, picture(example.guess, *((low, high) if alike else ()))))
    axis = "".join(f"<span>{example.seconds * k / 4:.3g}{' s' * (k == 4)}</span>" for k in range(5))
    figures = [
        f'<figure><figcaption>{text(n)}</figcaption><img src="{uri}" alt="{text(n)}"></figure>' for n, uri in views
    ]
    return "".join(figures) + f'<div class="axis">{axis}</div>'


def settings(pairs: Mapping[str, Any], config: Any = None) -> Section:
    """How it was made: a list of facts, and the whole configuration as JSON."""
    body = charts.facts(pairs)
    if config is not None:
        shown = text(json.dumps(config, indent=2, ensure_ascii=False, default=str))
        body += f"<details><summary>Configuration</summary><pre>{shown}</pre></details>"
    return Section(title="How it was made", body=body)


def notes(lines: Sequence[str]) -> Section | None:
    if not lines:
        return None
    body = "".join(f"<li>{text(line)}</li>" for line in lines)
    return Section(title="Notes", body=f'<ul class="notes">{body}</ul>')
