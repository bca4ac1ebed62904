"""PEM files (RFC 7468) with certificates and public keys: bounded reading, blocks with their lines."""

from __future__ import annotations

import base64
import binascii
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Final

MAX_FILE_OCTETS: Final = 16 * 1024 * 1024
CERTIFICATE_LABELS: Final = ("CERTIFICATE", "X509 CERTIFICATE")
PUBLIC_KEY_LABEL: Final = "PUBLIC KEY"
_BLOCK: Final = re.compile(
    rb"^-----BEGIN ([A-Z0-9 ]{1,64})-----[ \t]*\r?\n(.*?)^-----END \1-----[ \t]*\r?$", re.DOTALL | re.MULTILINE
)


class BadPem(ValueError):  # noqa: N818 - it names the fault, not the handling
    """A file that cannot be read as PEM; the message names it, and the line where there is one."""


@dataclass(frozen=True, slots=True)
class Block:
    """One block: its label, its content, and the number of its first line."""

    label: str
    der: bytes
    line: int


def read_blocks(path: str) -> tuple[Block, ...]:
    """All blocks of a file, in order; text between them is ignored.

    :raises BadPem: if it cannot be opened, is too large, or has a block that is incomplete or no base64.
    """
    try:
        with Path(path).open("rb") as file:
            text = file.read(MAX_FILE_OCTETS + 1)
    except OSError as error:
        raise BadPem(f"{path}: {error.strerror}") from None
    if len(text) > MAX_FILE_OCTETS:
        raise BadPem(f"{path}: larger than {MAX_FILE_OCTETS} octets")
    blocks: list[Block] = []
    line, counted_to = 1, 0
    for found in _BLOCK.finditer(text):
        line += text.count(b"\n", counted_to, found.start())
        counted_to = found.start()
        try:
            der = base64.b64decode(b"".join(found[2].split()), validate=True)
        except binascii.Error as error:
            raise BadPem(f"{path}:{line}: not base64: {error}") from None
        blocks.append(Block(found[1].decode("ascii"), der, line))
    if len(blocks) != text.count(b"-----BEGIN "):
        raise BadPem(f"{path}: incomplete PEM block")
    return tuple(blocks)
