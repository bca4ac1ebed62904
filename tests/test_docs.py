"""What the documents say of the code is so: links lead somewhere, named things exist, the table of floors is the test's."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.test_floors import FLOORS, HOUSE

ROOT = Path(__file__).parent.parent
DOCUMENTS = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")])


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_links_lead_somewhere(document: Path) -> None:
    for target in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", document.read_text()):
        if "://" not in target and not target.startswith("mailto:"):
            assert (document.parent / target).exists(), f"{document.name}: {target}"


def test_the_path_names_what_exists() -> None:
    rows = re.findall(r"\[`[^`]+`\]\(\.\./([^)]+)\)(?: `(\w+)`)?", (ROOT / "docs/path-of-a-message.md").read_text())
    assert len(rows) >= 15
    for path, name in rows:
        source = (ROOT / path).read_text()
        assert not name or re.search(rf"^(?:class|def|async def) {name}\b", source, re.MULTILINE), f"{path}: {name}"


def test_the_house_is_drawn_as_it_stands() -> None:
    text = (ROOT / "docs/house.md").read_text()
    drawn = {room: int(floor) for floor, room in re.findall(r"^\| (\d+) \| `(\w+)` \|", text, re.MULTILINE)}
    rooms = {path.stem for path in HOUSE.iterdir() if is_room(path)}
    assert drawn == {room: FLOORS[room] for room in rooms}


def is_room(path: Path) -> bool:
    return (path.is_dir() and any(path.glob("*.py"))) or (path.suffix == ".py" and not path.name.startswith("__"))
