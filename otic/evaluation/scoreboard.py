"""The report's scores: dots and whiskers, the table, and one model looked at closely."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float

from otic.core.seeds import rng
from otic.evaluation import charts
from otic.evaluation.baselines import is_baseline
from otic.evaluation.charts import Dot, Style, breaking, text
from otic.evaluation.metrics import average_precision, confusion, lower_is_better, scale
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
        for about, groups in _charts([row for row in results.rows if row.data == data]):
            low = charts.floor(dot.low for dots in groups.values() for dot in dots)
            title = f"<h3>{text(data)}<small>{text(about)}</small></h3>"
            figures.append(f"<div>{title}{charts.tracks(groups, drawn, low, 1.0)}</div>")
    body = f'<div class="two">{"".join(figures)}</div>'
    body += f'<details open><summary>All numbers</summary><div class="scroll">{_table(results, models)}</div></details>'
    lead = (
        "Percent. A dot is the score on test clips, its bar the 95 % bootstrap interval. "
        "In the table, an arrow marks a model that beats its baselines by more than the paired interval."
    )
    if any(row.metric.endswith("_rank") for row in results.rows):
        lead += " Ranks count from 1, the lower the better."
    if any(row.metric.endswith("_upstream") for row in results.rows):
        lead += " mAP@10_upstream is counted as published code does, and can exceed 100."
    if results.saw_labels:
        lead += f" A dagger marks models that learned from labels: {', '.join(results.saw_labels)}."
    return Section(title="Scores", body=body, lead=lead)


def _dot(row: Score) -> Dot:
    return Dot(name=row.model, value=row.value, low=row.ci95[0], high=row.ci95[1])


def _charts(rows: Sequence[Score]) -> list[tuple[str, dict[str, list[Dot]]]]:
    """What to draw of one data set: a chart for each metric, a group in it for each protocol; both ways of retrieval,
    and all kinds of wrong captions, share one."""
    out: dict[str, dict[str, list[Dot]]] = {}
    about: dict[str, str] = {}
    labels = main_metric([r for r in rows if r.protocol not in ("retrieval", "choice")])
    for row in rows:
        metric, key, group = row.metric, "", row.protocol
        if row.protocol == "retrieval" and metric.endswith("mAP@10"):
            key, group = "retrieval, mAP@10", metric.removesuffix("_mAP@10").replace("_", " ")
        elif row.protocol == "choice":
            key, group = "choice, accuracy", f"wrong by {metric.removeprefix('choice_')}, {row.n_test} clips"
        elif row.protocol not in ("retrieval", "choice") and metric == labels:
            key = METRIC_NAMES.get(metric, metric)
        if key:
            out.setdefault(key, {}).setdefault(group, []).append(_dot(row))
            about.setdefault(key, key if row.protocol == "choice" else f"{key}, {row.n_test} test clips")
    return [(about[key], groups) for key, groups in out.items()]


def main_metric(rows: Sequence[Score]) -> str:
    """The number to draw: mAP with several labels; UAR where classes are so unequal that it differs; else accuracy.

    Of retrieval it is the way from words to sound, of choices the order of events.
    """
    there = [row.metric for row in rows]
    for name in ("mAP", "text_to_audio_mAP@10", "choice_order"):
        if name in there:
            return name
    if there and "accuracy" not in there:
        return there[0]
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
    there = {(r.model, r.data, r.protocol, r.metric) for r in results.rows}
    out = []
    for model in own:
        common = {b: [key for key in keys if (b, *key) in there] for b in baselines}
        alike = len({len(some) for some in common.values()}) == 1
        wins = [
            f"{b} on {sum(results.beats(model, b, *key) for key in some)}{'' if alike else f' of {len(some)}'}"
            for b, some in common.items()
        ]
        if wins:
            most = max(map(len, common.values()))
            total = f"{f' of {most}' * alike} task{'s' * (most != 1)}"
            out.append(f"{model} beats {' and '.join(wins)}{total} by more than the 95 % interval.")
    return " ".join(out) or f"{len(results.rows)} scores of {len(own)} models."


def _table(results: Results, models: Sequence[str]) -> str:
    cells = {(r.data, r.protocol, r.metric, r.model): r for r in results.rows}
    chance, rows, above = results.chance(), [], ("", "")
    for line in dict.fromkeys((r.data, r.protocol, r.metric) for r in results.rows):
        there = [cells[*line, m] for m in models if (*line, m) in cells]
        best = (min if lower_is_better(line[2]) else max)(row.value for row in there)
        baselines = [row.model for row in there if is_baseline(row.model)]
        html = "".join(_number(cells.get((*line, m)), best, results, baselines) for m in models)
        if chance:
            html += f'<td class="num">{f"{scale(line[2]) * chance[line]:.1f}" if line in chance else ""}</td>'
        if line[:2] != above:
            columns = 1 + len(models) + bool(chance)
            rows.append(
                f'<tr class=first><td colspan="{columns}">{text(line[0])} <small>{text(line[1])}</small></td></tr>'
            )
        rows.append(f"<tr><td>{breaking(line[2])}</td>{html}</tr>")
        above = line[:2]
    head = "<th>metric</th>"
    head += "".join(f'<th class="num">{breaking(results.title(m))}</th>' for m in models)
    head += '<th class="num">chance</th>' if chance else ""
    return f"<table class=numbers><thead><tr>{head}</tr></thead><tbody>{''.join(rows)}</tbody></table>"


def _number(row: Score | None, best: float, results: Results, baselines: Sequence[str]) -> str:
    if row is None:
        return "<td></td>"
    k, digits = scale(row.metric), 2 if row.metric == "d_prime" else 1
    task = row.data, row.protocol, row.metric
    wins = bool(baselines) and all(results.beats(row.model, b, *task) for b in baselines)
    arrow = '<span class="up" title="beats the baselines">▲</span> ' if wins else ""
    interval = f"{k * row.ci95[0]:.{digits}f}–{k * row.ci95[1]:.{digits}f}"
    best_class = " best" if row.value == best else ""
    return f'<td class="num{best_class}">{arrow}{k * row.value:.{digits}f} <small>{interval}</small></td>'


def closer(view: View, others: Sequence[View] = (), *, seed: int = 0) -> Section:
    """One model on one data set: where its vectors lie, what it confuses, and each class beside the other models."""
    parts = [confusions(view), per_class([view, *others]) if len(view.task.classes) <= MOST_CLASSES else ""]
    body = f'{_map(view, seed)}<div class="two block">{"".join(parts)}</div>'
    lead = f"{view.model}, {view.protocol} probe, all test folds together."
    return Section(title=f"{view.data}, looked at closely", body=body, lead=lead)


def confusions(view: View) -> str:
    """Which class is taken for which; nothing where several may be right, or there are too many to draw."""
    if view.task.multi or len(view.task.classes) > MOST_CLASSES:
        return ""
    guess, truth = said(view)
    counts = confusion(guess.argmax(1), truth.argmax(1), truth.shape[1])
    title = "<h3>Confusions<small>true class down, guess across</small></h3>"
    return f"<div>{title}{charts.confusion(counts, view.task.classes)}</div>"


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


def said(view: View) -> tuple[np.ndarray, np.ndarray]:
    """Scores and truth of all test clips, fold after fold."""
    return np.concatenate(view.scores), np.concatenate([view.task.truth[s.test] for s in view.task.splits])


def per_class(views: Sequence[View]) -> str:
    """Recall (average precision with several labels) of every class by every model."""
    drawn = styles([v.model for v in views])
    groups: dict[str, list[Dot]] = {}
    for view in views:
        scored, truth = said(view)
        for k, name in enumerate(view.task.classes):
            if not truth[:, k].any():
                continue
            if view.task.multi:
                value = float(average_precision(scored[:, k], truth[:, k], np.ones((1, len(scored))))[0])
            else:
                value = float((scored.argmax(1)[truth[:, k] > 0] == k).mean())
            groups.setdefault(name, []).append(Dot(name=view.model, value=value, low=value, high=value))
    what = "average precision" if views[0].task.multi else "recall"
    return (
        f"<div><h3>Class by class<small>{what}, percent</small></h3>{charts.legend(drawn)}"
        f"{charts.dots(groups, drawn)}</div>"
    )
