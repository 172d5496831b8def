"""`otic evaluate --suite`: the published tasks whose data is there, our numbers beside the papers'."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from otic.apps import evaluate as job
from otic.core.errors import ConfigError, DataError
from otic.core.registry import unknown
from otic.data.rows import TEST, Source
from otic.data.source import open_source
from otic.evaluation.metrics import scale
from otic.evaluation.results import Results, align
from otic.evaluation.score import MULTI, SINGLE
from otic.evaluation.tasks import SUITES, BenchTask, missing, of_suite, plain
from otic.evaluation.words import WORDS, Wording
from otic.inference.prompts import clean, templates

TABLES = (".csv", ".jsonl", ".parquet")


@dataclass(frozen=True)
class SuiteRun:
    """What came out: the scores, and what is not there."""

    suite: str
    results: Results
    missing: list[str]  # one line for each data set that was not found, how to get it

    def text(self) -> str:
        """The table beside the paper's numbers, then what is missing."""
        parts = [self.table()] if self.results.rows else [f"{self.suite}: none of its data is there."]
        if self.results.notes:
            parts.append("\n".join(self.results.notes))
        if self.missing:
            parts.append("not there:\n  " + "\n  ".join(self.missing))
        return "\n\n".join(parts)

    def table(self) -> str:
        """One line for each task and metric, a column for each model, then the paper's."""
        rows = [row for row in self.results.rows if "paper" in row.config]
        models = list(dict.fromkeys(row.model for row in rows))
        cells = {(row.data, row.metric, row.model): row for row in rows}
        grid = [["task", "metric", *map(self.results.title, models), SUITES[self.suite].model, "clips"]]
        for data, metric in dict.fromkeys((row.data, row.metric) for row in rows):
            k = scale(metric)
            ours = [cells[data, metric, m] for m in models]
            numbers = [f"{k * s.value:.1f} [{k * s.ci95[0]:.1f}, {k * s.ci95[1]:.1f}]" for s in ours]
            paper, star = ours[0].config["paper"], "*" if ours[0].config["paper_saw_data"] else ""
            n, whole = ours[0].n_test, ours[0].config["paper_clips"]
            clips = f"{n} of {whole}" if whole and n != whole else str(n)
            grid.append([data, metric, *numbers, f"{k * paper:.1f}{star}", clips])
        return align(grid)


def evaluate(
    models: job.Models,
    suite: str,
    root: str | Path,
    *,
    protocols: Sequence[str] = (),
    prompt: Sequence[str] = (),
    out: str | Path | None = None,
    baselines: bool = True,
    seed: int = 0,
    tokenizer: job.Name | None = None,
    device: str | None = None,
    quiet: bool = True,
) -> SuiteRun:
    """Run a suite's tasks on whichever of its data sets lie under `root`.

    Args:
        models: As `apps.evaluate.evaluate`, each with words.
        suite: A name of `otic.evaluation.tasks.SUITES`.
        root: A folder of data sets, each called by its name, or one of these; `docs/tasks.md` lists them.
        protocols: `zero-shot`, `retrieval`; () = both.
        prompt: Instead of the suite's own.
        out: Folder for `results.json` and `report.html`; None writes nothing.
        baselines: Put the models' `untrained` twins beside them.
        seed: Of the baselines' weights and of the bootstrap.
        tokenizer: A folder with the vocabulary of published text towers.

    Raises:
        ConfigError: on an unknown suite, protocol or prompt, and on a model without words.
        DataError: when there is no such folder.
    """
    for protocol in protocols:
        if protocol not in WORDS:
            raise ConfigError(unknown("protocol of a suite", protocol, WORDS))
    wanted = [t for t in of_suite(suite) if t.run and (not protocols or t.protocol in protocols)]
    trained = [t for t in of_suite(suite) if not t.run and not protocols]
    if not wanted:
        known = ", ".join(sorted({t.protocol for t in of_suite(suite) if t.run}))
        raise ConfigError(f"{suite}: none of its tasks is scored by {', '.join(protocols)}. Known: {known}.")
    templates(prompt)
    there = _there(Path(root))
    found = {name: there[plain(name)] for t in wanted for name in (t.data.name, *t.data.also) if plain(name) in there}
    results = Results()
    absent = [t for t in wanted if not _place(t, found)]
    ready = [t for t in wanted if t not in absent]
    if ready:
        if out is not None:
            Path(out).mkdir(parents=True, exist_ok=True)  # fails now rather than after all the work
        speaking = job.with_twins(
            models, {t.protocol for t in ready}, baselines=baselines, seed=seed, device=device, tokenizer=tokenizer
        )
        results.mark({name: model.card for name, model in speaking.items()})
        done: set[tuple[Any, ...]] = set()
        for t in ready:
            if t.source() not in done:
                done.add(t.source())
                _one(results, t, _place(t, found), suite, speaking, prompt, seed, quiet)
                results.rows = _beside_papers(results, ready, suite)
                if out is not None and results.rows:
                    results.write(Path(out) / "results.json")  # what is done is kept, whatever comes next
        results.notes += [f"{t.name}: not run. {t.note}" for t in trained]
    if out is not None and results.rows:
        results.write(Path(out) / "results.json")
        job.write_report(results, Path(out) / "report.html")
    return SuiteRun(suite, results, missing(absent))


def _there(root: Path) -> dict[str, Path]:
    """Folders and tables in `root` and one level below, by their plain names, and `root`; the upper level counts first,
    `root` itself last."""
    if not root.is_dir():
        raise DataError(f"{root}: no such folder. Name the folder that holds the data sets with --data-root.")
    upper = sorted(path for path in root.iterdir() if path.is_dir() or path.suffix in TABLES)
    lower = [below for path in upper if path.is_dir() for below in sorted(path.iterdir()) if below.is_dir()]
    return {
        plain(path.stem if path.is_file() else path.name): path for path in [root.resolve(), *lower, *reversed(upper)]
    }


def _place(task: BenchTask, found: Mapping[str, Path]) -> Path | None:
    return next((found[name] for name in (task.data.name, *task.data.also) if name in found), None)


def _one(
    results: Results,
    task: BenchTask,
    path: Path | None,
    suite: str,
    models: Mapping[str, Any],
    prompt: Sequence[str],
    seed: int,
    quiet: bool,
) -> None:
    """Add one task's scores; data that cannot be used becomes a note."""
    assert path is not None
    ours = f"metadata.csv with {task.data.columns}: {task.data.get}"
    expected = f"Expected is {'the folder as unpacked, or ' if task.data.unpacked else ''}{ours}"
    try:
        source = _open(task, path)
    except DataError as error:
        results.notes.append(f"{_title(task)}: {error} {expected}")
        results.failed[str(path)] = str(error)
        return
    extra = tuple(m for m in task.published[suite] if m not in (*SINGLE, *MULTI) or m == "mAP")
    wording = Wording(
        prompts=templates(prompt or (task.prompt(suite),)),
        word=task.word,
        metrics=extra if task.protocol == "zero-shot" else (),
    )
    before = len(results.rows)
    job.ask(results, source, models, [task.protocol], wording, seed, quiet)
    if len(results.rows) == before:
        results.failed[str(path)] = results.notes[-1]
        results.notes[-1] += f" {expected}"


def _open(task: BenchTask, path: Path) -> Source:
    """The task's clips.

    Raises:
        DataError: when they cannot be read, or are not what the published number was measured on.
    """
    source = open_source(path, label_column=task.column)
    _check(task, source, path)
    if task.classes:
        keep = [i for i, row in enumerate(source.rows) if set(row.labels) & set(task.classes)]
        if not keep:
            raise DataError(f"{path}: none of its clips is labelled {', '.join(task.classes)}.")
        source = source.subset(keep)
    if task.every:
        source.rows = [replace(row, split=None) for row in source.rows]
    source.name = _title(task)
    return source


def _check(task: BenchTask, source: Source, path: Path) -> None:
    """What would give a number that means something else: no labels, labels in other words, only training clips."""
    if task.protocol == "zero-shot" and not source.classes:
        raise DataError(f"{path}: no clip has a label.")
    for label in source.classes:
        if task.words and label not in task.words and clean(label) not in task.words.values():
            known = ", ".join(f"{code} ({word})" if code != word else code for code, word in task.words.items())
            raise DataError(f"{path}: label {label!r:.60} is none of {known}.")
    splits = sorted({row.split for row in source.rows if row.split})
    if splits and not task.every and "split" in task.data.columns and not TEST & {s.lower() for s in splits}:
        raise DataError(f"{path}: none of its clips has the split test, only {', '.join(splits)}.")


def _title(task: BenchTask) -> str:
    """What its rows call the data: two tasks that are one evaluation share it."""
    return task.name if task.protocol == "zero-shot" else task.data.name


def _beside_papers(results: Results, tasks: Sequence[BenchTask], suite: str) -> list[Any]:
    """The rows, the paper's number in the config of those that have one."""
    papers = {}
    for t in tasks:
        known = {"suite": suite, "paper_saw_data": suite in t.trained_on, "paper_clips": t.clips}
        for metric, value in t.published[suite].items():
            papers[_title(t), t.protocol, metric] = known | {"paper": value}
    return [
        replace(row, config=row.config | papers.get((row.data, row.protocol, row.metric), {})) for row in results.rows
    ]
