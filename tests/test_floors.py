"""Imports run one way: a folder imports only from lower floors (and from itself)."""

import ast
from pathlib import Path

import otic

FLOORS = {
    "core": 0, "audio": 1, "masking": 1, "data": 2, "models": 2, "objectives": 3, "weights": 3,
    "engine": 4, "inference": 4, "evaluation": 5, "interop": 5, "recipes": 6, "apps": 7,
}  # fmt: skip
ROOT = Path(otic.__file__).parent


def imports(path: Path) -> set[str]:
    """The folders of otic that a file imports, wherever in the file the import stands."""
    modules: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            modules |= {f"{node.module}.{a.name}" if node.module == "otic" else str(node.module) for a in node.names}
        elif isinstance(node, ast.Import):
            modules |= {a.name for a in node.names}
    return {m.split(".")[1] for m in modules if m.startswith("otic.")} & FLOORS.keys()


def test_every_folder_has_a_floor():
    folders = {p.parent.name for p in ROOT.glob("*/__init__.py")}
    assert folders <= FLOORS.keys()


def test_imports_run_one_way():
    wrong = [
        f"{path.relative_to(ROOT)} ({folder}, floor {FLOORS[folder]}) imports {target} (floor {FLOORS[target]})"
        for folder in FLOORS
        for path in sorted((ROOT / folder).rglob("*.py"))
        for target in sorted(imports(path))
        if target != folder and FLOORS[target] >= FLOORS[folder]
    ]
    assert not wrong, "\n".join(wrong)
