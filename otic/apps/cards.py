"""`otic models` and `otic info`: the catalogue, the recipes, and one model's card."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from otic.core.config import to_dict
from otic.recipes import RECIPES
from otic.weights.catalogue import CATALOGUE, Entry


def listing() -> tuple[dict[str, Any], str]:
    """Every published checkpoint and every recipe: (document, text)."""
    models = [asdict(entry) for entry in CATALOGUE.values()]
    recipes = [{"name": name, "summary": _first_line(recipe)} for name, recipe in RECIPES.items()]
    rows = [("model", "system", "parameters", "labels", "licence")]
    rows += [(e.name, e.system, _millions(e.parameters), e.labels_used, e.licence) for e in CATALOGUE.values()]
    text = table(rows) + "\n\n" + table([("recipe", ""), *((r["name"], r["summary"]) for r in recipes)])
    return {"models": models, "recipes": recipes}, text


def card(model: str) -> tuple[dict[str, Any], str]:
    """What is known of a MODEL or a recipe: (document, text). Nothing is downloaded.

    Raises:
        WeightsError: when there is no such model.
    """
    from otic.inference.load import find, read_model

    if model in RECIPES:
        document: dict[str, Any] = {
            "name": model,
            "summary": _first_line(RECIPES[model]),
            "recipe": to_dict(RECIPES[model]()),
        }
        return document, _lines(document)
    path = find(model)
    if path is None and model in CATALOGUE:
        document = _published(CATALOGUE[model])
        return document, _lines(document)
    loaded = read_model(model)
    document = {
        **loaded.card,
        "parameters": sum(p.numel() for p in loaded.encoder.parameters()),
        "encoder": to_dict(loaded.encoder.cfg),
        "frontend": to_dict(loaded.frontend),
        "classes": loaded.extra_config.get("classes", []),
        "file": str(path or model),
    }
    return document, _lines(document)


def table(rows: Sequence[Sequence[str]]) -> str:
    """Columns of equal width, left-aligned, two spaces between."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join("  ".join(f"{cell:<{w}}" for cell, w in zip(row, widths, strict=True)).rstrip() for row in rows)


def _published(entry: Entry) -> dict[str, Any]:
    return {key: value for key, value in asdict(entry).items() if value not in ("", {})}


def _lines(document: dict[str, Any], indent: str = "") -> str:
    out = []
    for key, value in document.items():
        if isinstance(value, dict):
            out.append(f"{indent}{key}:")
            out.append(_lines(value, indent + "  "))
        elif value not in (None, [], ""):
            shown = ", ".join(map(str, value)) if isinstance(value, list) else value
            out.append(f"{indent}{key}: {f'{shown:,}' if key == 'parameters' else shown}")
    return "\n".join(line for line in out if line)


def _millions(count: int) -> str:
    return f"{count / 1e6:.1f} M"


def _first_line(thing: Any) -> str:
    return (thing.__doc__ or "").strip().partition("\n")[0]
