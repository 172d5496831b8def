"""`otic demo`: the whole way once. Data, pre-training, scores beside two honest baselines, a report."""

from __future__ import annotations

import webbrowser
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from otic.apps.evaluate import evaluate
from otic.apps.pretrain import Run, pretrain
from otic.apps.pretrain_page import examples
from otic.core.config import to_dict
from otic.core.machine import machine
from otic.data.crops import clips
from otic.data.rows import Source
from otic.data.source import open_source
from otic.evaluation import report, scoreboard
from otic.evaluation.report import Section
from otic.evaluation.results import Results

CORPUS = "synth:corpus?clips=2400"  # 1800 to learn from, 600 held out
RECIPE = "eat_demo"
MAPPED = 1000  # clips on the map of data without labels


@dataclass(frozen=True)
class Demo:
    """What came out: the run, the scores (none for data without labels), and the text for the terminal."""

    run: Run
    results: Results
    text: str


def demo(
    *,
    data: str | Path | None = None,
    out: str | Path = "runs/demo",
    minutes: float | int = 4.0,
    seed: int = 0,
    open: bool = False,
    settings: Sequence[str] = (),
    quiet: bool = False,
) -> Demo:
    """Pre-train a tiny encoder, score it, write `results.json` and `report.html` into `out`.

    Args:
        data: Any SRC; None: the embedded corpus. Without labels there is a map instead of scores. Where it has a
            split `train`, the encoder learns from that alone.
        out: The run's folder; the same command again goes on with a run that was stopped.
        minutes: Of pre-training.
        seed: Of everything random.
        open: Show the report in a browser.
        settings: Changes of the recipe, `key=value`.
        quiet: No progress on stderr.

    Raises:
        DataError: when the data cannot be used.
        Interrupted: after Ctrl-C, the state saved.
    """
    out = Path(out)
    source = open_source(str(data or CORPUS))
    where = ("split=train",) if any(row.split == "train" for row in source.rows) else ()
    run = pretrain(
        RECIPE, str(data or CORPUS), out=out, where=where, minutes=minutes, seed=seed, settings=settings, quiet=quiet
    )
    results = _scores(run, source, seed, quiet)
    results.notes += run.notes
    results.write(out / "results.json")
    page = out / "report.html"
    write_report(page, run, source, results)
    if open:
        webbrowser.open(page.resolve().as_uri())
    return Demo(run, results, _text(out, str(data or CORPUS), results))


def _scores(run: Run, source: Source, seed: int, quiet: bool) -> Results:
    """Linear probe and kNN where the data names at least two kinds of sound."""
    if len(source.classes) >= 2:
        return evaluate({"pretrained": run.load()}, source, protocols=("linear", "knn"), seed=seed, quiet=quiet)
    return Results(notes=[f"{source.name}: no labels, so there is nothing to score; the map shows what lies together."])


def write_report(path: Path, run: Run, source: Source, results: Results) -> None:
    """The page: scores, training, masks and predictions, the map and the confusions, settings."""
    closer = [scoreboard.closer(v, [o for o in results.views if o is not v and o.protocol == v.protocol])
              for v in results.views[:1]]  # fmt: skip
    recipe = run.recipe
    facts = {
        "method": f"{recipe.method} ({recipe.name})", "data": f"{source.name}, {len(source)} clips",
        "updates": f"{run.steps} of {recipe.batch_size} clips", "training": f"{run.seconds / 60:.1f} min",
        "machine": ", ".join(f"{k} {v}" for k, v in machine().items() if v),
    }  # fmt: skip
    log = run.log()
    sections = [
        scoreboard.scores(results), report.curves(log), report.health(log), report.masked(examples(run.folder, recipe)),
        *(closer or [_map(run, source)]), report.notes(results.notes), report.settings(facts, to_dict(recipe)),
    ]  # fmt: skip
    summary = scoreboard.sentence(results) if results.rows else results.notes[0]
    report.write(path, f"{recipe.name} on {source.name}", *sections, summary=summary)


def _map(run: Run, source: Source) -> Section:
    """Where the clips lie, for data without classes to score."""
    model = run.load()
    picked = np.linspace(0, len(source) - 1, min(len(source), MAPPED)).astype(int).tolist()
    heard = list(clips(source, model.sample_rate, picked, max_seconds=30.0))
    vectors = model.encode([wave for _, wave in heard])
    rows = [source.rows[i] for i, _ in heard]
    labels = [row.labels[0] if row.labels else "clips" for row in rows]
    body = scoreboard.embedding_map(vectors, labels, [row.id for row in rows])
    return Section(title="Embedding map", body=body)


def _text(out: Path, data: str, results: Results) -> str:
    """The table, and what to try next."""
    quoted = f'"{data}"' if any(c in data for c in " ?&*") else data
    following = [
        f"otic info {out}", f"otic evaluate {out} --data {quoted} --protocol linear --out {out}/scores",
        f"otic embed {out} FOLDER --out vectors.parquet",
    ]  # fmt: skip
    lines = [results.table(), scoreboard.sentence(results)] if results.rows else list(results.notes)
    return "\n\n".join([*lines, f"report: {out / 'report.html'}", "next:\n  " + "\n  ".join(following)])
