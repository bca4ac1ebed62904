"""The house keeps its shape: who may import whom, what pure rooms may touch, and how large a file may grow."""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

HOUSE = Path(__file__).parent.parent / "relay"

# A file imports only from lower floors or from its own room (docs/house.md shows this table).
FLOORS = {
    "mail": 1,
    "maps": 1,
    "dane": 2,
    "dns": 3,
    "mtasts": 4,
    "routing": 4,
    "sasl": 4,
    "scheduling": 4,
    "policy": 5,
    "config": 6,
    "tls": 6,
    "lab": 6,
    "outcome": 7,
    "importing": 8,
    "log": 8,
    "lanes": 9,
    "queue": 9,
    "ledger": 9,
    "delivery": 9,
    "worker": 10,
    "smtpd": 10,
    "explain": 10,
    "desk": 11,
    "control": 11,
    "app": 12,
    "cli": 13,
    "__main__": 14,
}

PURE = {
    "mail",
    "maps/build",
    "maps/cidr",
    "maps/dialect",
    "maps/lines",
    "maps/notation",
    "maps/rules",
    "maps/table",
    "maps/comments",
    "maps/file",
    "maps/index",
    "maps/inplace",
    "routing",
    "importing/defaults",
    "importing/expand",
    "importing/files",
    "sasl",
    "dane",
    "policy",
    "outcome",
    "dns/answer",
    "tls/peer",
    "tls/certificate",
    "tls/names",
    "tls/judge",
    "tls/verdict",
    "tls/findings",
    "tls/transcript",
    "policy/parameters",
    "tls/signature",
    "log/events",
    "log/postfix",
    "log/json",
    "queue/schedule",
    "queue/filter",
    "queue/filter_text",
    "queue/notices",
    "smtpd/parameters",
    "ledger/findings",
    "ledger/marks",
    "smtpd/replies",
    "smtpd/content",
    "smtpd/softening",
    "smtpd/chunking",
    "smtpd/commands",
    "smtpd/rates",
    "smtpd/budget",
    "smtpd/section",
    "smtpd/access",
    "smtpd/clientcerts",
    "smtpd/proxy",
    "smtpd/ownership",
    "delivery/plan",
    "delivery/lines",
    "delivery/downgrade",
    "explain/objects",
    "explain/seen",
    "explain/story",
    "explain/text",
    "delivery/replies",
    "scheduling",
}
PURE_MAY_USE = {"cryptography", "idna"}
IMPURE = {
    "asyncio",
    "socket",
    "ssl",
    "logging",
    "os",
    "time",
    "random",
    "subprocess",
    "threading",
    "pathlib",
    "secrets",
}

# Guards that may catch everything: a session and its beginning, a lease, a resolver's parser, a writer's job.
MAY_CATCH_ALL = {
    "relay/app/reload.py",
    "relay/log/sink.py",
    "relay/queue/database.py",
    "relay/queue/writer.py",
    "relay/smtpd/accepting.py",
    "relay/smtpd/conversation.py",
    "relay/smtpd/session.py",
    "relay/tls/certificate.py",
    "relay/worker/carrying.py",
}
MAX_FILE_LINES = 400
MAX_FUNCTION_LINES = 60

FILES = sorted(HOUSE.rglob("*.py"))


def name_of(path: Path) -> str:
    return path.relative_to(HOUSE).with_suffix("").as_posix()


def room_of(path: Path) -> str:
    return name_of(path).split("/")[0]


def imports(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "relative import"
            assert node.module is not None
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


@pytest.fixture(params=FILES, ids=name_of)
def path(request: pytest.FixtureRequest) -> Path:
    assert isinstance(request.param, Path)
    return request.param


@pytest.fixture
def tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text())


def test_imports_go_down(path: Path, tree: ast.Module) -> None:
    room = room_of(path)
    if room == "__init__":
        assert not list(imports(tree))
        return
    for name in imports(tree):
        parts = name.split(".")
        if parts[0] != "relay" or len(parts) < 2:
            continue
        if parts[1] == room or parts[1] == "__version__":
            continue
        assert parts[1] in FLOORS, f"{path}: room {parts[1]!r} has no floor"
        assert FLOORS[parts[1]] < FLOORS[room], f"{path}: {room} (floor {FLOORS[room]}) imports {name}"


def test_pure_files_touch_nothing(path: Path, tree: ast.Module) -> None:
    if room_of(path) not in PURE and name_of(path) not in PURE:
        return
    for name in imports(tree):
        top = name.split(".")[0]
        assert top not in IMPURE, f"{path} imports {name}"
        assert top in sys.stdlib_module_names or top in PURE_MAY_USE or top == "relay", f"{path} imports {name}"
    for node in ast.walk(tree):
        assert not isinstance(node, ast.AsyncFunctionDef), f"{path}:{node.lineno}: async in a pure file"
        if isinstance(node, ast.Attribute) and node.attr in {"now", "utcnow", "today"}:
            owner = ast.unparse(node.value)
            assert owner not in {"datetime", "date"}, f"{path}:{node.lineno}: the clock in a pure file"


def test_files_and_functions_stay_small(path: Path, tree: ast.Module) -> None:
    assert len(path.read_text().splitlines()) <= MAX_FILE_LINES
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            assert node.end_lineno is not None
            length = node.end_lineno - node.lineno + 1
            assert length <= MAX_FUNCTION_LINES, f"{path}:{node.lineno}: {node.name} has {length} lines"


def test_only_guards_catch_everything(path: Path, tree: ast.Module) -> None:
    where = path.relative_to(HOUSE.parent).as_posix()
    for node in ast.walk(tree):
        if isinstance(node, ast.ExceptHandler):
            caught = "everything" if node.type is None else ast.unparse(node.type)
            if caught in {"everything", "Exception", "BaseException"}:
                assert where in MAY_CATCH_ALL, f"{where}:{node.lineno}: except {caught}"


def test_silenced_checks_have_a_reason(path: Path) -> None:
    for number, line in enumerate(path.read_text().splitlines(), 1):
        if re.search(r"#\s*(noqa|type:\s*ignore)", line):
            assert re.search(r"#\s*(noqa: [A-Z]+\d+|type: ignore\[[a-z-]+\])(, [A-Z]+\d+)* ?[ -]+ ?\w", line), (
                f"{path}:{number}: say why the check is silenced"
            )


def test_rooms_do_not_go_in_circles() -> None:
    graph = {
        name_of(path): {
            target
            for name in imports(ast.parse(path.read_text()))
            if name.startswith("relay.")
            for target in (name.removeprefix("relay.").replace(".", "/"), "/".join(name.split(".")[1:-1]))
            if (HOUSE / f"{target}.py").exists()
        }
        for path in FILES
    }
    done: set[str] = set()

    def visit(node: str, trail: tuple[str, ...]) -> None:
        assert node not in trail, " -> ".join([*trail, node])
        if node not in done:
            for target in graph[node]:
                if target != node:
                    visit(target, (*trail, node))
            done.add(node)

    for node in graph:
        visit(node, ())


def test_no_room_is_called_after_nothing() -> None:
    assert not {"util", "utils", "helpers", "common"} & {part for path in FILES for part in path.parts}
