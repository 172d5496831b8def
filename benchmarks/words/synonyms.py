"""`python -m benchmarks.words.synonyms RUN ... --data DIR`: are sounds found by words that no caption had?

The recordings of ESC-10's fold 5, which of the ten sounds each is: asked by the names of the classes, and by one other
word for each, which stands in no caption of the scenes. 95 % bootstrap intervals over the recordings.
"""

from __future__ import annotations

import argparse
import csv
from pathlib import Path

import numpy as np

import otic
from benchmarks import table
from otic.core.seeds import rng

OTHER = {
    "chainsaw": "lumberjack",
    "clock_tick": "wristwatch",
    "crackling_fire": "campfire",
    "crying_baby": "newborn",
    "dog": "puppy",
    "helicopter": "rotorcraft",
    "rain": "drizzle",
    "rooster": "cockerel",
    "sea_waves": "seashore",
    "sneezing": "achoo",
}


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.words.synonyms", description=__doc__)
    parser.add_argument("runs", nargs="+", help="models aligned with words")
    parser.add_argument("--data", type=Path, required=True, help="folder with `esc10` and the scene recipes")
    args = parser.parse_args()
    known = {word for name in ("esc10_scenes", "esc30_scenes") for word in captioned(args.data / name / "scenes.csv")}
    assert not known & set(OTHER.values()), f"stand in captions: {known & set(OTHER.values())}"
    rows = [row for row in read(args.data / "esc10" / "metadata.csv") if row["fold"] == "5"]
    print(
        "\n".join(
            table(
                ["model", "asked by", "accuracy, %"],
                [line for run in args.runs for line in asked(run, args.data, rows)],
            )
        )
    )


def asked(run: str, data: Path, rows: list[dict[str, str]]) -> list[tuple[str, str, str]]:
    """A line for the classes' names, and one for the other words."""
    model, labels = otic.load(run), np.array([row["label"] for row in rows])
    heard, lines = model.audio([data / "esc10" / row["file"] for row in rows]), []
    for how, words in (("names", [name.replace("_", " ") for name in OTHER]), ("other words", list(OTHER.values()))):
        said = model.text([f"this is a sound of {word}" for word in words])
        right = np.array(list(OTHER))[(heard @ said.T).argmax(1)] == labels
        draws = rng("synonyms").integers(0, len(right), (1000, len(right)))
        low, high = np.percentile(right[draws].mean(1), [2.5, 97.5])
        lines.append((run, how, f"{100 * right.mean():.1f} [{100 * low:.1f}, {100 * high:.1f}]"))
    return lines


def captioned(path: Path) -> set[str]:
    """All words of the captions of a scene recipe."""
    texts = (text for row in read(path) for name, text in row.items() if name.startswith(("caption", "hard_negative")))
    return set(" ".join(texts).lower().replace(",", " ").split())


def read(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


if __name__ == "__main__":
    main()
