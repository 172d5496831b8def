"""The report's scores: dots and whiskers, the table, and one model looked at closely."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float

from otic.core.seeds import rng
from otic.evaluation import charts
from otic.evaluation.baselines import is_baseline
from otic.evaluation.charts import Dot, Style, text
from otic.evaluation.metrics import average_precision, confusion
from otic.evaluation.projection import plane
from otic.evaluation.report import Section
from otic.evaluation.results import Results, Score
from otic.evaluation.score import View

METRIC_NAMES = {"uar": "unweighted average recall", "mAP": "mean average precision", "d_prime": "d′"}
MOST_POINTS = 1500  # in a map: more of them hide each other, and t-SNE takes its time
MOST_CLASSES = 60  # drawn one by one


def styles(models: Sequence[str]) -> dict[str, Style]:
    """Colours for the models under test, greys for the baselines."""
    own = [m for m in models if not is_baseline(m)]
    out = {m: Style(colour=f"var(--s{k % 6})", shape="circle") for k, m in enumerate(own)}
    for m in models:
        if m not in out:
            plain = m == "logmel-stats"
            out[m] = Style(colour=f"var(--b{int(plain)})", shape="square" if plain else "diamond", own=False)
    return {m: out[m] for m in models}


def scores(results: Results) -> Section | None:
    """Dots and whiskers for each data set, then the same numbers as a table."""
    if not results.rows:
        return None
    models = list(dict.fromkeys(row.model for row in results.rows))
    drawn = styles(models)
    figures = []
    for data in dict.fromkeys(row.data for row in results.rows):
        rows = [row for row in results.rows if row.data == data]
        metric = main_metric(rows)
        groups = {
            p: [_dot(r) for r in rows if (r.protocol, r.metric) == (p, metric)]
            for p in dict.fromkeys(r.protocol for r in rows)
        }
        low = charts.floor(dot.low for dots in groups.values() for dot in dots)
        about = f"<small>{METRIC_NAMES.get(metric, metric)}, {rows[0].n_test} test clips</small>"
        figures.append(f"<div><h3>{text(data)}{about}</h3>{charts.tracks(groups, drawn, low, 1.0)}</div>")
    body = f'<div class="two">{"".join(figures)}</div>'
    body += f'<details open><summary>All numbers</summary><div class="scroll">{_table(results, models)}</div></details>'
    lead = (
        "Percent. A dot is the score on clips the probe never saw, its bar the 95 % bootstrap interval. "
        "In the table, an arrow marks a model that beats both baselines by more than the paired interval."
    )
    if results.saw_labels:
        lead += f" A dagger marks models that learned from labels: {', '.join(results.saw_labels)}."
    return Section(title="Scores", body=body, lead=lead)


def _dot(row: Score) -> Dot:
    return Dot(name=row.model, value=row.value, low=row.ci95[0], high=row.ci95[1])


def main_metric(rows: Sequence[Score]) -> str:
    """The number to draw: mAP with several labels; UAR where classes are so unequal that it differs; else accuracy."""
    there = {row.metric for row in rows}
    if "mAP" in there:
        return "mAP"
    recalls = {(r.model, r.protocol): r.value for r in rows if r.metric == "uar"}
    gaps = [abs(r.value - recalls[r.model, r.protocol]) for r in rows if r.metric == "accuracy" and recalls]
    return "uar" if max(gaps, default=0.0) > 0.005 else "accuracy"


def sentence(results: Results) -> str:
    """What came out, in a sentence per model: on how many tasks it beats which baseline beyond the interval."""
    models = list(dict.fromkeys(row.model for row in results.rows))
    own, baselines = ([m for m in models if is_baseline(m) == kind] for kind in (False, True))
    tasks: dict[tuple[str, str], list[Score]] = {(r.data, r.protocol): [] for r in results.rows}
    for row in results.rows:
        tasks[row.data, row.protocol].append(row)
    keys = [(*task, main_metric(rows)) for task, rows in tasks.items()]
    out = []
    for model in own:
        wins = [f"{b} on {sum(results.beats(model, b, *key) for key in keys)}" for b in baselines]
        if wins:
            out.append(f"{model} beats {' and '.join(wins)} of {len(keys)} tasks by more than the 95 % interval.")
    return " ".join(out) or f"{len(results.rows)} scores of {len(own)} models."


def _table(results: Results, models: Sequence[str]) -> str:
    cells = {(r.data, r.protocol, r.metric, r.model): r for r in results.rows}
    baselines = [m for m in models if is_baseline(m)]
    rows, above = [], ("", "", "")
    for line in dict.fromkeys((r.data, r.protocol, r.metric) for r in results.rows):
        best = max(cells[*line, m].value for m in models if (*line, m) in cells)
        html = "".join(_number(cells.get((*line, m)), best, results, baselines) for m in models)
        same = line[0] == above[0], line[:2] == above[:2], False
        names = "".join(f"<td>{'' if known else text(name)}</td>" for name, known in zip(line, same))
        rows.append(f"<tr{'' if same[0] else ' class=first'}>{names}{html}</tr>")
        above = line
    head = "".join(f"<th>{name}</th>" for name in ("data", "protocol", "metric"))
    head += "".join(f'<th class="num">{text(results.title(m))}</th>' for m in models)
    return f"<table><thead><tr>{head}</tr></thead><tbody>{''.join(rows)}</tbody></table>"


def _number(row: Score | None, best: float, results: Results, baselines: Sequence[str]) -> str:
    if row is None:
        return "<td></td>"
    scale, digits = (1, 2) if row.metric == "d_prime" else (100, 1)
    task = row.data, row.protocol, row.metric
    wins = bool(baselines) and all(results.beats(row.model, b, *task) for b in baselines)
    arrow = '<span class="up" title="beats the baselines">▲</span> ' if wins else ""
    interval = f"{scale * row.ci95[0]:.{digits}f}–{scale * row.ci95[1]:.{digits}f}"
    best_class = " best" if row.value == best else ""
    return f'<td class="num{best_class}">{arrow}{scale * row.value:.{digits}f} <small>{interval}</small></td>'


def closer(view: View, others: Sequence[View] = (), *, seed: int = 0) -> Section:
    """One model on one data set: where its vectors lie, what it confuses, and each class beside the other models."""
    parts = []
    if not view.task.multi and len(view.task.classes) <= MOST_CLASSES:
        guess, truth = _said(view)
        counts = confusion(guess.argmax(1), truth.argmax(1), truth.shape[1])
        title = "<h3>Confusions<small>true class down, guess across</small></h3>"
        parts.append(f"<div>{title}{charts.confusion(counts, view.task.classes)}</div>")
    if len(view.task.classes) <= MOST_CLASSES:
        parts.append(_per_class([view, *others]))
    body = f'{_map(view, seed)}<div class="two block">{"".join(parts)}</div>'
    lead = f"{view.model}, {view.protocol} probe, all test folds together."
    return Section(title=f"{view.data}, looked at closely", body=body, lead=lead)


def _map(view: View, seed: int) -> str:
    labels = [" + ".join(c for c, t in zip(view.task.classes, row) if t) or "no label" for row in view.task.truth]
    keep = np.sort(rng(seed, "map").permutation(len(labels))[:MOST_POINTS])
    return embedding_map(view.vectors[keep], [labels[i] for i in keep], [view.ids[i] for i in keep], seed=seed)


def embedding_map(
    vectors: Float[np.ndarray, "n d"], labels: Sequence[str], ids: Sequence[str], *, seed: int = 0
) -> str:
    """A t-SNE of the vectors, coloured by label; hovering names the clip, a click in the legend singles out a class."""
    points = plane(np.asarray(vectors, dtype=float), seed=seed)
    title = f"<h3>Embedding map<small>t-SNE of {len(points)} clips; near means similar, far means little</small></h3>"
    return f'<div class="block">{title}{charts.scatter(points, labels, ids)}</div>'


def _said(view: View) -> tuple[np.ndarray, np.ndarray]:
    """Scores and truth of all test clips, fold after fold."""
    return np.concatenate(view.scores), np.concatenate([view.task.truth[s.test] for s in view.task.splits])


def _per_class(views: Sequence[View]) -> str:
    """Recall (average precision with several labels) of every class by every model."""
    drawn = styles([v.model for v in views])
    groups: dict[str, list[Dot]] = {}
    for view in views:
        said, truth = _said(view)
        for k, name in enumerate(view.task.classes):
            if not truth[:, k].any():
                continue
            if view.task.multi:
                value = float(average_precision(said[:, k], truth[:, k], np.ones((1, len(said))))[0])
            else:
                value = float((said.argmax(1)[truth[:, k] > 0] == k).mean())
            groups.setdefault(name, []).append(Dot(name=view.model, value=value, low=value, high=value))
    what = "average precision" if views[0].task.multi else "recall"
    return (
        f"<div><h3>Class by class<small>{what}, percent</small></h3>{charts.legend(drawn)}"
        f"{charts.dots(groups, drawn)}</div>"
    )
