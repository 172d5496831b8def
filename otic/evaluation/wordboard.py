"""The report's part on words: classes named without training, and what queries find.

Axes: n clips, c classes, q queries, k items found.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from otic.core.seeds import rng
from otic.evaluation import scoreboard
from otic.evaluation.charts import breaking, text
from otic.evaluation.report import Section
from otic.evaluation.retrieval import Captioned, Ranked, chance, statistics
from otic.evaluation.score import View
from otic.evaluation.words import Found
from otic.evaluation.zero_shot import ranks

QUERIES, HITS = 6, 4  # examples in each direction, and how many of their hits are shown
SHARES = ("R@1", "R@5", "R@10", "mAP@10")
WAYS = {"text_to_audio": "text to audio", "audio_to_text": "audio to text"}


def named(view: View, others: Sequence[View] = ()) -> Section:
    """Each class: where the right name stands among all, what is named instead; and all confusions."""
    few = len(view.task.classes) <= scoreboard.MOST_CLASSES
    charts = [scoreboard.confusions(view), scoreboard.per_class([view, *others]) if few else ""]
    body = f'<div class="block">{_classes(view)}</div><div class="two block">{"".join(charts)}</div>'
    lead = (
        f"{view.model}: the class whose sentence lies nearest, nothing trained on these classes. The rank is where the "
        f"right class stands among {len(view.task.classes)}, the median of its clips."
        f"{' Where several are right, only one can be named first.' * view.task.multi}"
    )
    return Section(title=f"{view.data}, named by words alone", body=body, lead=lead)


def _classes(view: View) -> str:
    """One line for each class, the best known first."""
    said, truth = scoreboard.said(view)
    guess, rows = said.argmax(1), []
    wrong = truth[np.arange(len(truth)), guess] <= 0
    for k, name in enumerate(view.task.classes):
        own = truth[:, k] > 0
        if not own.any():
            continue
        first = ranks(said[own], np.eye(truth.shape[1])[[k] * int(own.sum())])
        instead = np.bincount(guess[own & wrong], minlength=truth.shape[1])
        other = f"{view.task.classes[instead.argmax()]} ({instead.max()})" if instead.any() else "–"
        cells = [name, own.sum(), f"{100 * (guess[own] == k).mean():.0f}", f"{np.median(first):g}", other]
        rows.append((float((first - 1).mean()), cells))
    rows = sorted(rows, key=lambda row: row[0])[: scoreboard.MOST_CLASSES]
    return _table(["class", "clips", "named first, %", "median rank", "most often instead"], [r for _, r in rows], 3)


def found(view: Found, others: Sequence[Found] = (), *, seed: int = 0) -> Section:
    """Retrieval as a table, beside chance, and some queries with what they find."""
    parts = [f'<div class="two block">{"".join(_scores([view, *others], way) for way in WAYS)}</div>']
    for way in WAYS:
        asked = len(view.found[way].first)
        drawn = f"{QUERIES} queries drawn at random" if asked > QUERIES else f"all {asked} queries"
        title = f"<h3>{WAYS[way]}<small>{drawn}</small></h3>"
        parts.append(f'<div class="block">{title}{_examples(view, way, seed)}</div>')
    match = "their meaning is the same" if view.asked.by == "semantic_id" else "they belong together"
    lead = (
        f"{len(view.ids)} clips with {len(view.asked.captions)} captions; a caption and a clip match when {match}. "
        "R@k is the share of queries with a match among the first k; a check marks a match; ranks count from 1."
    )
    return Section(title=f"{view.data}, found by words", body="".join(parts), lead=lead)


def _scores(views: Sequence[Found], way: str) -> str:
    rows = []
    for view in views:
        values = statistics({way: view.found[way]}, view.asked.owner)
        once = np.ones((1, len(view.ids)))
        value = {name: float(values[f"{way}_{name}"](once)[0]) for name in (*SHARES, "median_rank")}
        rows.append([view.model, *(f"{100 * value[name]:.1f}" for name in SHARES), f"{value['median_rank']:g}"])
    luck = chance(views[0].found[way])
    rows.append(["chance", *(f"{100 * luck[name]:.1f}" for name in SHARES), f"{luck['median_rank']:g}"])
    return f"<div><h3>{WAYS[way]}</h3>{_table(['', *SHARES, 'median rank'], rows, 5)}</div>"


def _examples(view: Found, way: str, seed: int) -> str:
    ranked = view.found[way]
    picked = np.sort(rng(seed, "queries", way).permutation(len(ranked.first))[:QUERIES])
    rows = []
    for q in picked.tolist():
        asked, answers = _query(view, way, q), _answers(view, way, ranked, q)
        rank = f'<td class="num"><span>first match: </span>{ranked.first[q]}</td>'
        rows.append(f"<tr><td>{asked}</td>{rank}<td>{answers}</td></tr>")
    what = ("caption", "clips found") if way == "text_to_audio" else ("clip", "captions found")
    head = f'<th>{what[0]}</th><th class="num">first match</th><th>{what[1]}, nearest first</th>'
    return f'<table class="queries"><thead><tr>{head}</tr></thead><tbody>{"".join(rows)}</tbody></table>'


def _query(view: Found, way: str, q: int) -> str:
    return text(view.asked.captions[q]) if way == "text_to_audio" else _clip(view, q)


def _answers(view: Found, way: str, ranked: Ranked, q: int) -> str:
    """The nearest items; a sentence that several clips share is shown once."""
    items: dict[str, bool] = {}
    for item, hit in zip(ranked.top[q].tolist(), ranked.hits[q].tolist()):
        what = _clip(view, item) if way == "text_to_audio" else text(view.asked.captions[item])
        items[what] = items.get(what, False) or hit
    lines = [f'<li class="{"hit" if hit else "miss"}">{what}</li>' for what, hit in list(items.items())[:HITS]]
    return f'<ol class="hits">{"".join(lines)}</ol>'


def _clip(view: Found, i: int) -> str:
    return f"{text(first_caption(view.asked, i))} <small>{text(view.ids[i])}</small>"


def first_caption(asked: Captioned, clip: int) -> str:
    """What a clip is, in words."""
    return asked.captions[int(np.searchsorted(asked.owner, clip))]


def _table(head: Sequence[str], rows: Sequence[Sequence[object]], numbers: int) -> str:
    """A plain table; columns 1 to `numbers` hold numbers."""
    kinds = [' class="num"' if 1 <= k <= numbers else "" for k in range(len(head))]
    top = "".join(f"<th{kind}>{text(cell)}</th>" for kind, cell in zip(kinds, head))
    lines = ("".join(f"<td{kind}>{breaking(cell)}</td>" for kind, cell in zip(kinds, row)) for row in rows)
    body = "".join(f"<tr>{line}</tr>" for line in lines)
    return f'<div class="scroll"><table><thead><tr>{top}</tr></thead><tbody>{body}</tbody></table></div>'
