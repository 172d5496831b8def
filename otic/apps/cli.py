"""The command line: each verb is a typed function which calls the library; its flags come from its signature."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal

from tyro.conf import UseAppendAction, arg

from otic import __version__
from otic.apps.shell import COMMON, DONE, SOME_FAILED, UNUSABLE, Answer, Shared, Usage, Verbs, no_settings, note, run

Precision = Literal["auto", "fp32", "bf16"]
Name = Annotated[str, arg(metavar="MODEL")]
Sources = Annotated[UseAppendAction[tuple[tuple[str, ...], ...]], arg(metavar="SRC...")]
Many = UseAppendAction[tuple[str, ...]]
Seconds = Annotated[float | None, arg(metavar="SECONDS")]
Count = Annotated[int | None, arg(metavar="N")]
Number = Annotated[float | None, arg(metavar="X")]
Text = Annotated[str | None, arg(metavar="STR")]


def demo(
    *,
    data: Text = None,
    out: Path = Path("runs/demo"),
    minutes: float = 4.0,
    open: bool = False,
    seed: int = 0,
    common: Shared = COMMON,
) -> Answer:
    """Go the whole way once: data, pre-training, scores beside two baselines, a report.

    Example: otic demo --data recordings/ --minutes 10

    Args:
        data: A folder of audio, or any other SRC; default: sounds that otic renders itself.
        out: Folder for the model, results.json and report.html.
        minutes: Time for the pre-training.
        open: Show the report in a browser at the end.
        seed: Of everything random.
    """
    from otic.apps.demo import demo as job

    done = job(data=data, out=out, minutes=minutes, open=open, seed=seed, settings=common.set, quiet=common.quiet)
    return Answer(done.results.to_dict(), done.text, SOME_FAILED if done.results.failed or done.run.bad else DONE)


def pretrain(
    recipe: Annotated[str, arg(metavar="RECIPE")],
    /,
    *,
    data: Sources = (),
    out: Path,
    steps: Count = None,
    epochs: Number = None,
    minutes: Number = None,
    init: Text = None,
    device: Text = None,
    devices: Count = None,
    precision: Precision = "auto",
    seed: Count = None,
    where: Many = (),
    teacher_cache: Text = None,
    common: Shared = COMMON,
) -> Answer:
    """Train an encoder on audio; without labels, unless the recipe says that it uses them.

    Where RUN holds a checkpoint, the run goes on from it.

    Example: otic pretrain eat_tiny --data recordings/ --out runs/mine --minutes 60

    Args:
        recipe: A recipe of `otic models`.
        data: Any SRC: folders of audio, manifests, scene recipes, synth:corpus?clips=2000.
        out: The run folder: checkpoint, log.jsonl, model.safetensors, report.html.
        steps: Optimiser steps of the whole run; default: the recipe's.
        epochs: Instead of steps: passes over the data.
        minutes: Instead of steps: time.
        init: A MODEL whose weights to start from.
        device: cpu, cuda; default: a GPU when there is one.
        devices: Processes that share each batch, one for each GPU; default: all GPUs. Across machines, use torchrun.
        precision: auto is bf16 where the hardware is faster in it.
        seed: Of weights, order, crops and masks; default: the recipe's.
        where: Keep the rows that match, as in_test=0; repeatable.
        teacher_cache: A folder; what the recipe's teachers say of each clip is heard once and kept there.
    """
    from otic.apps.pretrain import pretrain as job

    run = job(
        recipe, flat(data), out=out, steps=steps, epochs=epochs, minutes=minutes, init=init, device=device,
        devices=devices, precision=precision, seed=seed, where=where, teacher_cache=teacher_cache,
        settings=common.set, quiet=common.quiet,
    )  # fmt: skip
    loss = "" if run.loss is None else f", loss {run.loss:.4g}"
    text = f"{run.weights}: {run.steps} steps{loss}\nreport: {run.report}\nnext: otic evaluate {run.folder} --data SRC"
    return Answer(run.to_dict(), text, SOME_FAILED if run.bad else DONE)


def evaluate(
    models: Annotated[tuple[str, ...], arg(metavar="MODEL...")],
    /,
    *,
    data: Sources = (),
    protocol: str = "linear,knn",
    out: Annotated[Path | None, arg(metavar="DIR")] = None,
    layers: Many = (),
    pool: Many = (),
    baselines: bool = True,
    label_column: str = "label",
    split_column: Text = None,
    where: Many = (),
    device: Text = None,
    seed: int = 0,
    common: Shared = COMMON,
) -> Answer:
    """Score models on labelled data, beside an untrained twin and log-mel statistics.

    Example: otic evaluate runs/demo --data esc10/ --out scores/

    Args:
        models: One or several; they are compared on the same clips.
        data: Labelled SRCs, each scored by itself.
        protocol: linear, knn; joined by commas.
        out: Folder for results.json and report.html.
        layers: Blocks to read, as 3,7,11; repeatable: the best on the training clips is taken.
        pool: mean, mean_std, cls, ...; repeatable likewise.
        baselines: Leave `untrained` and `logmel-stats` out.
        label_column: The column that holds the target.
        split_column: The column that says train and test.
        where: Keep the rows that match, as fold!=5; repeatable.
        device: cpu, cuda; default: a GPU when there is one.
        seed: Of folds, baselines and bootstrap.
    """
    from otic.apps.evaluate import evaluate as job

    no_settings("evaluate", common.set)
    results = job(
        need(models, "MODEL"), flat(data), protocols=protocol.split(","), out=out, baselines=baselines, seed=seed,
        layers=[numbers(text) for text in layers] or None, pools=pool or None, label_column=label_column,
        split_column=split_column, where=where, device=device, quiet=common.quiet,
    )  # fmt: skip
    for file, reason in results.failed.items():
        note(f"{file}: {reason}")
    return Answer(results.to_dict(), results.table(), SOME_FAILED if results.failed else DONE)


def embed(
    model: Name,
    audio: Annotated[tuple[Path, ...], arg(metavar="AUDIO...")],
    /,
    *,
    out: Path,
    level: Literal["clip", "frame"] = "clip",
    window: Seconds = None,
    hop: Seconds = None,
    layer: Text = None,
    pool: Text = None,
    device: Text = None,
    precision: Precision = "fp32",
    common: Shared = COMMON,
) -> Answer:
    """Turn audio files into vectors.

    Interrupted, the same command goes on where it stopped.

    Example: otic embed runs/demo recordings/ --out vectors.parquet

    Args:
        model: A run folder, a weights file, a name of `otic models`, or an upstream checkpoint.
        audio: Files, or folders to search.
        out: .parquet, .npz, .npy or .lance
        level: One vector per window, or per frame (160 ms in most models).
        window: Seconds in a window; 0: one vector per file; default: the model's (10).
        hop: Seconds between two windows; default: the window.
        layer: Blocks to read, as 3,7,11, from 0, negative from the end; default: the model's.
        pool: mean, cls, ... (joined by +); default: the model's.
        device: cpu, cuda; default: a GPU when there is one.
        precision: auto is bf16 where the hardware is faster in it.
    """
    from otic.apps.embed import embed as job

    report = job(
        model, audio, out, level=level, window=window, hop=hop, layer=numbers(layer) if layer else None, pool=pool,
        device=device, precision=precision, settings=common.set, quiet=common.quiet,
    )  # fmt: skip
    lines = [f"{file}: {reason}" for file, reason in report.failed]
    kept = f"{out}: {report.rows} vectors of {report.dim}" if report.rows else "nothing was embedded"
    code = UNUSABLE if not report.rows else SOME_FAILED if report.failed else DONE
    document = {
        "out": str(out) if report.rows else None, "rows": report.rows, "dim": report.dim,
        "resumed": report.resumed, "failed": [{"file": f, "reason": r} for f, r in report.failed],
    }  # fmt: skip
    for line in lines:
        note(line)
    return Answer(document, kept + (f"; {len(lines)} inputs failed" if lines else ""), code)


def models(*, common: Shared = COMMON) -> Answer:
    """List the published checkpoints and the recipes that have names.

    Example: otic models
    """
    from otic.apps.cards import listing

    no_settings("models", common.set)
    return Answer(*listing())


def info(model: Name, /, *, common: Shared = COMMON) -> Answer:
    """Show a model's card: architecture, front-end, licence, labels used, scores.

    Example: otic info runs/demo

    Args:
        model: A run folder, a weights file, a name of `otic models`, or an upstream checkpoint.
    """
    from otic.apps.cards import card

    no_settings("info", common.set)
    return Answer(*card(model))


def data_check(
    src: Annotated[tuple[str, ...], arg(metavar="SRC...")],
    /,
    *,
    where: Many = (),
    label_column: str = "label",
    common: Shared = COMMON,
) -> Answer:
    """Listen to every file of a data set: what is good, doubtful, bad.

    Example: otic data check recordings/

    Args:
        src: Folders of audio, manifests, scene recipes.
        where: Keep the rows that match, as fold!=5; repeatable.
        label_column: The column that holds the target.
    """
    from otic.apps.progress import Progress
    from otic.data.check import check

    no_settings("data check", common.set)
    with Progress("check", "clips", quiet=common.quiet) as progress:
        report = check(need(src, "SRC"), where=where, label_column=label_column, progress=progress)
    code = UNUSABLE if not report.usable else SOME_FAILED if report.bad else DONE
    return Answer(report.to_dict(), "\n".join(report.lines()), code)


def data_synth(
    *,
    out: Annotated[Path, arg(metavar="DIR")],
    name: str = "corpus",
    clips: int = 2000,
    seed: int = 0,
    rate: int = 16_000,
    format: Literal["flac", "wav", "ogg"] = "flac",
    common: Shared = COMMON,
) -> Answer:
    """Write the synthetic corpus as a folder of audio with labels, captions and onsets.

    Interrupted, the same command goes on where it stopped.

    Example: otic data synth --out sounds/ --clips 500

    Args:
        out: Folder for the sounds, metadata.csv and events.csv.
        name: Which corpus.
        clips: How many.
        seed: Another seed, other clips.
        rate: Hz.
        format: 16 bit (flac, wav) or Vorbis (ogg).
    """
    from otic.apps.progress import Progress
    from otic.data.export import write_folder
    from otic.data.source import open_source

    no_settings("data synth", common.set)
    source = open_source(f"synth:{name}?clips={clips}&seed={seed}")
    with Progress("render", "clips", quiet=common.quiet) as progress:
        done = write_folder(source, out, rate=rate, format=format, progress=progress)
    document = {"out": out, "clips": done.clips, "new": done.new, "bad": done.bad}
    return Answer(document, f"{out}: {done.clips} clips ({done.new} new)", SOME_FAILED if done.bad else DONE)


def flat(data: Sequence[Sequence[str]]) -> list[str]:
    """`--data a b --data c` as one list.

    Raises:
        Usage: when there is none.
    """
    return list(need([src for some in data for src in some], "--data SRC"))


def need(values: Sequence[str], what: str) -> Sequence[str]:
    if not values:
        raise Usage(f"{what} is missing: name at least one.")
    return values


def numbers(text: str) -> tuple[int, ...]:
    """`3,7,-1` as numbers.

    Raises:
        Usage: when it is something else.
    """
    try:
        return tuple(int(part) for part in text.split(","))
    except ValueError:
        raise Usage(f"layers {text!r}: expected numbers with commas between, as 3,7,11.") from None


VERBS: Verbs = {
    "demo": demo,
    "pretrain": pretrain,
    "evaluate": evaluate,
    "embed": embed,
    "data": {"check": data_check, "synth": data_synth},
    "models": models,
    "info": info,
}


def main(argv: Sequence[str] | None = None) -> int:
    """The entry point `otic`; the exit code."""
    return run("otic", VERBS, __version__, sys.argv[1:] if argv is None else argv)


if __name__ == "__main__":
    sys.exit(main())
