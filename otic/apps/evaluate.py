"""`otic evaluate`: several models on several data sets, beside the baselines, with intervals."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from copy import copy
from dataclasses import asdict
from pathlib import Path
from typing import Any

from otic.apps.progress import Progress
from otic.core.errors import ConfigError, DataError
from otic.core.machine import machine
from otic.core.registry import unknown
from otic.core.text import count
from otic.data.rows import Row, Source
from otic.data.source import open_source
from otic.evaluation import report, scoreboard, wordboard, words
from otic.evaluation.baselines import LogMelStats, is_baseline, untrained
from otic.evaluation.features import Encoder, Reading, extract
from otic.evaluation.probe import PROBES
from otic.evaluation.results import Results
from otic.evaluation.score import View, compare
from otic.evaluation.splits import Task, task
from otic.evaluation.words import WORDS, Joint, Wording
from otic.inference.prompts import templates

Name = str | Path
Models = Name | Encoder | Sequence[Name | Encoder] | Mapping[str, Name | Encoder]
Data = Name | Source | Sequence[Name | Source]


def evaluate(
    models: Models,
    data: Data,
    *,
    protocols: Sequence[str] = ("linear", "knn"),
    out: Name | None = None,
    baselines: bool = True,
    seed: int = 0,
    layers: Sequence[Sequence[int]] | None = None,
    pools: Sequence[str] | None = None,
    label_column: str = "label",
    split_column: str | None = None,
    where: Sequence[str] = (),
    prompt: Sequence[str] = (),
    tokenizer: Name | None = None,
    device: str | None = None,
    quiet: bool = True,
) -> Results:
    """Score models on labelled or captioned data.

    Args:
        models: One or several: what `otic.load` takes, a loaded model, or a dict of these by name.
        data: One or several labelled data sets, each scored by itself.
        protocols: `linear`, `knn`; for models with words also `zero-shot`, `retrieval`, `choice`, on the split `test`
            where there is one.
        out: Folder for `results.json` and `report.html`; None writes nothing.
        baselines: Put `logmel-stats` and the models' `untrained` twins beside them.
        seed: Of the baselines' weights, of folds where the data has none, and of the bootstrap.
        layers: Sets of layers to choose from on the training clips; None: what the model's card says.
        pools: Poolings to choose from on the training clips; None: what the model's card says.
        label_column: The column that holds the target.
        split_column: The column that says train and test, or whose every value is a fold.
        where: Conditions on the rows, as `fold!=5`; for `zero-shot`, classes that are left out are not offered either.
        prompt: What `zero-shot` says of a class, as `this is a sound of {}`, or a name of `PROMPTS`; several
            are averaged.
        tokenizer: A folder with the vocabulary of published text towers, for models that came without.

    Raises:
        ConfigError: on an unknown protocol, layer, pooling or prompt, on one that no protocol has a use for, and on a
            model without words where it needs some.
        DataError: when data cannot be used for any of the protocols.
        WeightsError: when a model cannot be loaded.
    """
    probes, asked = _kinds(protocols)
    if (layers or pools) and not probes:
        raise ConfigError(f"layers and pooling are for probes alone, not for {', '.join(asked)}: leave them out.")
    if prompt and "zero-shot" not in asked:
        raise ConfigError(f"a prompt is for zero-shot alone, not for {', '.join(protocols)}: leave it out.")
    wording = Wording(prompts=templates(prompt))
    named = _models(models, device, tokenizer)
    choice = [
        Reading(layers=tuple(i) if i is not None else None, pool=p) for i in layers or (None,) for p in pools or (None,)
    ]
    _check_words(named, asked)
    readings = dict.fromkeys(named, choice)
    if baselines:
        twins = _untrained(named, seed, bool(asked))
        readings |= {name: readings[of] for name, (of, _) in twins.items()}
        named |= {name: twin for name, (_, twin) in twins.items()}
    speaking = dict(named)
    if baselines and probes:
        readings["logmel-stats"], named["logmel-stats"] = [Reading()], LogMelStats()
    if out is not None:
        Path(out).mkdir(parents=True, exist_ok=True)  # fails now rather than after all the work
    results = Results()
    results.mark({name: model.card for name, model in named.items()})
    for source in _sources(data, label_column=label_column, split_column=split_column, where=where):
        before = len(results.rows)
        if probes:
            _probe(results, source, named, readings, probes, seed, quiet)
        if asked:
            ask(results, source, speaking, asked, wording, seed, quiet)
        if len(results.rows) == before:
            raise DataError(f"{source.name}: nothing to score. {' '.join(results.notes[-len(asked) :])}")
        if out is not None:
            results.write(Path(out) / "results.json")  # what is done is kept, whatever comes next
    if out is not None:
        write_report(results, Path(out) / "report.html")
    return results


def write_report(results: Results, path: Path) -> None:
    """The scores of an evaluation as a page: all in one chart, then the first model on each data set."""
    own = list(dict.fromkeys(row.model for row in results.rows if not is_baseline(row.model)))
    sets = list(dict.fromkeys(row.data for row in results.rows))
    made = report.settings(machine(), [asdict(row) for row in results.rows])
    title = f"{', '.join(own)} on {', '.join(sets)}"
    summary = scoreboard.sentence(results)
    report.write(
        path, title, scoreboard.scores(results), *closely(results), report.notes(results.notes), made, summary=summary
    )


def closely(results: Results) -> list[report.Section]:
    """The first model on each data set, the others beside it: its probes, its naming, its finding."""
    own = [row.model for row in results.rows if not is_baseline(row.model)]
    sets = list(dict.fromkeys(row.data for row in results.rows))
    first: dict[tuple[str, bool, type], Any] = {}
    for view in results.views:
        if view.model == own[0]:
            first.setdefault((view.data, view.protocol in WORDS, type(view)), view)
    return [
        _close(first[key], [v for v in results.views if _beside(v, first[key])])
        for key in sorted(first, key=lambda key: sets.index(key[0]))
    ]


def _close(view: Any, others: Sequence[Any]) -> report.Section:
    """One model on one data set: its probe, its naming, or its finding."""
    if not isinstance(view, View):
        return wordboard.found(view, others)
    return wordboard.named(view, others) if view.protocol in WORDS else scoreboard.closer(view, others)


def _beside(view: Any, first: Any) -> bool:
    return view is not first and (view.data, view.protocol) == (first.data, first.protocol)


def _kinds(protocols: Sequence[str]) -> tuple[list[str], list[str]]:
    """Probes, and protocols that need words; unknown names answer before any work is done."""
    for protocol in protocols:
        if protocol not in PROBES and protocol not in WORDS:
            raise ConfigError(unknown("protocol", protocol, [*PROBES, *WORDS]))
    once = list(dict.fromkeys(protocols))
    return [p for p in once if p in PROBES], [p for p in once if p in WORDS]


def with_twins(
    models: Models,
    protocols: Collection[str],
    *,
    baselines: bool,
    seed: int,
    device: str | None,
    tokenizer: Name | None = None,
) -> dict[str, Any]:
    """The models by name, each with words, and their untrained twins.

    Raises:
        ConfigError: on a model without words.
    """
    named = _models(models, device, tokenizer)
    _check_words(named, sorted(protocols))
    twins = _untrained(named, seed, words=True) if baselines else {}
    return named | {name: twin for name, (_, twin) in twins.items()}


def _check_words(models: Mapping[str, Any], protocols: Sequence[str]) -> None:
    for protocol in protocols:
        for name, model in models.items():
            words.need_words(name, model, protocol)


def ask(
    results: Results,
    source: Source,
    models: Mapping[str, Any],
    protocols: Sequence[str],
    wording: Wording,
    seed: int,
    quiet: bool,
) -> None:
    """Add the scores of the protocols that need words on one data set; what the data cannot answer becomes a note."""
    classes, source = source.classes, source.subset(words.heard(source.rows))
    for name in list(protocols):
        try:
            WORDS[name](source.rows, classes, wording)
        except DataError as error:
            results.notes.append(f"{source.name}: no {name}: {error}")
            protocols = [p for p in protocols if p != name]
    if not protocols:
        return
    with Progress(f"hear {source.name}", unit="clips", quiet=quiet) as progress:
        readings = {name: [Reading()] for name in models}
        features, rows, bad = extract({n: Joint(m) for n, m in models.items()}, source, readings, progress)
    kept = [source.rows[i] for i in rows]
    _note_bad(results, source, bad)
    for name in protocols:
        question = WORDS[name](kept, classes, wording)
        scores, differences, views = words.compare(source.name, models, features, question, name, seed=seed)
        results.rows += scores
        results.differences += differences
        results.views += views


def _note_bad(results: Results, source: Source, bad: Mapping[str, str]) -> None:
    results.failed |= bad
    note = f"{source.name}: {len(bad)} of {count(len(source), 'clip')} could not be read; left out"
    if bad and note not in results.notes:
        results.notes.append(note)


def _probe(
    results: Results,
    source: Source,
    models: Mapping[str, Encoder],
    readings: Mapping[str, Sequence[Reading]],
    protocols: Sequence[str],
    seed: int,
    quiet: bool,
) -> None:
    """Add the probes' scores on one data set."""
    asked = _question(source, source.rows, seed)
    needed = sorted({int(i) for split in asked.splits for i in (*split.train, *split.test)})
    source = source.subset(needed)
    with Progress(f"embed {source.name}", unit="clips", quiet=quiet) as progress:
        features, rows, bad = extract(models, source, readings, progress)
    kept = [source.rows[i] for i in rows]
    question = _question(source, kept, seed)
    results.notes += [f"{source.name}: {note}" for note in question.notes]
    _note_bad(results, source, bad)
    for protocol in protocols:
        scores, differences, views = compare(
            source.name, features, question, protocol, ids=[row.id for row in kept], seed=seed
        )
        results.rows += scores
        results.differences += differences
        results.views += views


def _question(source: Source, rows: Sequence[Row], seed: int) -> Task:
    try:
        return task(rows, seed)
    except DataError as error:
        raise DataError(f"{source.name}: {error}") from None


def _models(models: Models, device: str | None, tokenizer: Name | None = None) -> dict[str, Any]:
    """The models by name, loaded; equal names get a number."""
    if isinstance(models, Mapping):
        for name in filter(is_baseline, models):
            raise ConfigError(f"model name {name!r}: a baseline has it. Choose another.")
        return {name: _load(m, device, tokenizer) for name, m in models.items()}
    several = [models] if isinstance(models, str | Path | Encoder) else list(models)
    if not several:
        raise ConfigError("No model given. Name a run folder, a weights file, or a name of `otic models`.")
    named: dict[str, Any] = {}
    for given in several:
        model = _load(given, device, tokenizer)
        name = Path(given).name if isinstance(given, str | Path) else str(model.card.get("name") or "model")
        same = sum(other.partition("#")[0] == name for other in named) + is_baseline(name)
        named[name if not same else f"{name}#{same + 1}"] = model
    return named


def _load(model: Name | Encoder, device: str | None, tokenizer: Name | None) -> Any:
    from otic.inference.load import load

    if not isinstance(model, str | Path):
        return model
    loaded = load(model, device=device)
    mute = loaded.towers is not None and loaded.towers.tokenizer is None
    return load(model, device=device, tokenizer=tokenizer) if mute and tokenizer is not None else loaded


def _untrained(models: Mapping[str, Any], seed: int, words: bool = False) -> dict[str, tuple[str, Any]]:
    """For each architecture among the models: the twin's name, whose twin it is, and the twin."""
    twins: dict[str, tuple[str, Any]] = {}
    seen: list[tuple[Any, ...]] = []
    for name, model in models.items():
        kind = (
            type(model.encoder),
            model.encoder.cfg,
            getattr(model.frontend, "cfg", None),
            model.card.get("inference"),
            model.towers.cfg if words else None,
        )
        if kind not in seen:
            seen.append(kind)
            twins["untrained" if len(seen) == 1 else f"untrained {name}"] = name, untrained(model, seed)
    return twins


def _sources(data: Data, **options: Any) -> list[Source]:
    """The data sets, opened; equal names get a number."""
    several = [data] if isinstance(data, str | Path | Source) else list(data)
    opened = [d if isinstance(d, Source) else open_source(d, **options) for d in several]
    names = [source.name for source in opened]
    for k, name in enumerate(names):
        if name in names[:k]:
            opened[k] = copy(opened[k])
            opened[k].name = f"{name}#{names[: k + 1].count(name)}"
    return opened
