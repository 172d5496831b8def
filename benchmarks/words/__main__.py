"""`python -m benchmarks.words --init RUN --data DIR --out DIR`: one encoder aligned with words, and what that is worth.

For each scene set (`esc10_scenes`, then `esc30_scenes`): the recipe `clap_tiny` on the split `train` around the
pre-trained encoder, and around the same encoder with fresh weights (`plain`); two more runs (`left`, `left_plain`)
never hear or read of the five classes in `LEFT`. Then, on test scenes, retrieval both ways and the choice against
nearly right captions; classes by their names on the recordings of fold 5, which no scene of the training split
contains, and on all recordings of the five classes left out. Beside each stand chance and both towers untrained. Every
stage is resumed where it stopped.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

import otic
from otic.apps.pretrain import pretrain
from otic.core.files import write_json
from otic.core.seeds import generator
from otic.evaluation.results import Results, Score
from otic.inference.load import read_model
from otic.weights import store

RUNS = ("pretrained", "plain", "left", "left_plain")
LEFT = ("chainsaw", "clock_tick", "dog", "rain", "rooster")  # all of ESC-10
RECORDINGS = {"esc10_scenes": ("esc10",), "esc30_scenes": ("esc10", "esc50_dev20")}
RETRIEVAL = [
    f"{way}_{metric}" for way in ("text_to_audio", "audio_to_text") for metric in ("R@1", "R@5", "R@10", "mAP@10")
]
METRICS = (*RETRIEVAL, "choice_order", "choice_class", "accuracy")


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.words", description=__doc__)
    parser.add_argument("--init", required=True, help="the pre-trained encoder, a MODEL")
    parser.add_argument("--data", type=Path, required=True, help="folder with the scene recipes and recordings")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=1500)
    parser.add_argument("--sets", nargs="+", default=list(RECORDINGS), choices=list(RECORDINGS))
    parser.add_argument("--runs", nargs="+", default=list(RUNS), choices=list(RUNS))
    parser.add_argument("--set", action="append", default=[], dest="settings")
    args = parser.parse_args()
    plain = untrained(args.init, args.out / "plain_encoder")
    rows: list[dict[str, Any]] = []
    for scenes in args.sets:
        for run in args.runs:
            init = plain if run.endswith("plain") else args.init
            folder, left = args.out / f"{scenes}_{run}", LEFT if run.startswith("left") else ()
            align(folder, init, args.data / scenes, args.steps, left, args.settings)
            rows += scored(folder, args.data, scenes, run)
    print(table(rows))


def untrained(init: str, folder: Path) -> Path:
    """The same encoder, front-end and reading, its weights fresh."""
    model = read_model(init)
    path = folder / "model.safetensors"
    if not path.exists():
        fresh = store.build(model.encoder.cfg, generator("plain"))
        store.save(path, fresh, model.frontend, {**model.card, "name": "plain"})
    return folder


def align(folder: Path, init: Any, data: Path, steps: int, left: tuple[str, ...], settings: list[str]) -> None:
    where = ["split=train", *([f"labels not in {','.join(left)}"] if left else [])]
    pretrain("clap_tiny", data, out=folder, init=init, where=where, steps=steps, settings=settings)


def scored(folder: Path, root: Path, scenes: str, run: str) -> list[dict[str, Any]]:
    """The scores of a run, kept beside it."""
    path = folder / "scores.json"
    if path.exists():
        return json.loads(path.read_text(encoding="utf-8"))["rows"]
    torch.manual_seed(0)
    results = Results()
    if run.startswith("left"):
        asked = [(root / "esc10", ("zero-shot",), [f"label in {','.join(LEFT)}"])]
    else:
        asked = [(root / scenes, ("retrieval", "choice"), [])]
        asked += [(root / name, ("zero-shot",), ["fold=5"]) for name in RECORDINGS[scenes]]
    for source, protocols, where in asked:
        found = otic.evaluate(str(folder), str(source), protocols=protocols, where=where, quiet=False)
        results.rows += found.rows
        results.differences += found.differences
    rows = [{**asdict(row), "run": run, "scenes": scenes} for row in results.rows if row.metric in METRICS]
    write_json(path, {"rows": rows})
    return rows


def table(rows: list[dict[str, Any]]) -> str:
    """Markdown: each number of each run, with its interval, its untrained towers and chance."""
    head = ["scenes", "run", "data", "protocol", "metric", "aligned", "towers untrained", "chance"]
    lines = [head, ["---"] * len(head)]
    twins = {(r["scenes"], r["run"], r["data"], r["metric"]): r for r in rows if r["model"] == "untrained"}
    for row in rows:
        if row["model"] == "untrained":
            continue
        twin = twins[row["scenes"], row["run"], row["data"], row["metric"]]
        chance = row["config"].get("chance")
        cells = [row["scenes"], row["run"], row["data"], row["protocol"], row["metric"], percent(row), percent(twin)]
        lines.append([*cells, "" if chance is None else f"{100 * chance:.1f}"])
    return "\n".join(f"| {' | '.join(map(str, line))} |" for line in lines)


def percent(row: dict[str, Any] | Score) -> str:
    values = row if isinstance(row, dict) else asdict(row)
    low, high = values["ci95"]
    return f"{100 * values['value']:.1f} [{100 * low:.1f}, {100 * high:.1f}]"


if __name__ == "__main__":
    main()
