"""Directories for servers that run as users of their own: pytest's are closed to them again at every start of a pytest."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def places(*names: str) -> Iterator[Sequence[Path]]:
    """A directory for each name, open to be entered by everybody, gone at the end."""
    above = Path(tempfile.mkdtemp(prefix="dane-relay-"))
    above.chmod(0o755)
    try:
        found = [above / name for name in names]
        for place in found:
            place.mkdir(mode=0o755)
        yield found
    finally:
        shutil.rmtree(above, ignore_errors=True)
