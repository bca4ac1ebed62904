"""docs/conformance.md is whole, and every test that it names exists."""

from __future__ import annotations

import ast
import re
from pathlib import Path

ROOT = Path(__file__).parent.parent
TEXT = (ROOT / "docs/conformance.md").read_text()
ROWS = re.findall(r"^\| R(\d+)( D)? \|([^|]*)\|([^|]*)\|([^|]*)\|$", TEXT, re.MULTILINE)
PUBLISHERS = {52, 53}


def test_every_requirement_has_its_row() -> None:
    assert [int(number) for number, *_ in ROWS] == list(range(1, 58))


def test_every_row_names_its_proof() -> None:
    for number, differs, _, proof, remark in ROWS:
        assert "::" in proof or int(number) in PUBLISHERS, f"R{number} has no test"
        assert not differs or remark.strip(), f"R{number} differs and does not say how"


def test_every_test_named_exists() -> None:
    named = set(re.findall(r"`(tests/[\w/.]+\.py)::([\w:]+)`", TEXT))
    assert len(named) > 30
    for path, name in named:
        tree: ast.AST = ast.parse((ROOT / path).read_text())
        for part in name.split("::"):
            inside = [
                node
                for node in ast.iter_child_nodes(tree)
                if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) and node.name == part
            ]
            assert inside, f"{path} has no {name}"
            tree = inside[0]
