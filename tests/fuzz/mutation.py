"""Mutations of octets and of DER structures, as hypothesis strategies."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from hypothesis import strategies as st

MAX_CHANGES = 4
_CONSTRUCTED = 0x20
_TAGS = (
    0x01,
    0x02,
    0x03,
    0x04,
    0x05,
    0x06,
    0x0A,
    0x0C,
    0x13,
    0x16,
    0x17,
    0x18,
    0x1E,
    0x30,
    0x31,
    0x80,
    0x82,
    0x87,
    0xA0,
    0xA3,
)


@dataclass(slots=True)
class Node:
    """One element of a DER structure, to be changed.

    :param inner: the elements that it consists of; empty for a primitive one, and for one that does not parse.
    :param prefix: octets before ``inner`` (the count of unused bits, where a bit string wraps a structure).
    """

    tag: int
    content: bytes = b""
    inner: list[Node] = field(default_factory=list)
    prefix: bytes = b""

    def encode(self) -> bytes:
        """The octets again, every length made to fit."""
        content = self.prefix + b"".join(each.encode() for each in self.inner) if self.inner else self.content
        if len(content) < 0x80:
            return bytes((self.tag, len(content))) + content
        length = len(content).to_bytes((len(content).bit_length() + 7) // 8, "big")
        return bytes((self.tag, 0x80 | len(length))) + length + content

    def walk(self) -> list[Node]:
        """This element and all in it, outermost first."""
        return [self, *(below for each in self.inner for below in each.walk())]


def parse(der: bytes) -> Node:
    """Read one element with everything in it, also what octet strings wrap.

    :raises ValueError: if it is none.
    """
    nodes = _parse_all(der)
    if len(nodes) != 1:
        raise ValueError("not one element")
    return nodes[0]


def _parse_all(octets: bytes) -> list[Node]:
    nodes: list[Node] = []
    at = 0
    while at < len(octets):
        if len(octets) - at < 2 or octets[at] & 0x1F == 0x1F:
            raise ValueError("no header")
        tag, length = octets[at], octets[at + 1]
        at += 2
        if length & 0x80:
            count = length & 0x7F
            length = int.from_bytes(octets[at : at + count], "big")
            at += count
        if len(octets) - at < length:
            raise ValueError("too long")
        content = octets[at : at + length]
        at += length
        node = Node(tag, content)
        if tag & _CONSTRUCTED or tag == 0x04:
            try:
                node.inner = _parse_all(content)
            except ValueError:
                node.inner = []
        nodes.append(node)
    return nodes


@st.composite
def changed_octets(draw: st.DrawFn, originals: Sequence[bytes], max_changes: int = MAX_CHANGES) -> bytes:
    """One of ``originals`` with bits flipped, octets put in, taken out and cut off, or spliced with another one."""
    octets = bytearray(draw(st.sampled_from(originals)))
    for _ in range(draw(st.integers(0, max_changes))):
        if not octets:
            break
        at = draw(st.integers(0, len(octets) - 1))
        match draw(st.sampled_from(("flip", "set", "cut", "insert", "delete", "splice", "repeat"))):
            case "flip":
                octets[at] ^= 1 << draw(st.integers(0, 7))
            case "set":
                octets[at] = draw(st.sampled_from((0x00, 0x01, 0x7F, 0x80, 0x81, 0x84, 0xC0, 0xFF)))
            case "cut":
                del octets[at:]
            case "insert":
                octets[at:at] = draw(st.binary(min_size=1, max_size=8))
            case "delete":
                del octets[at : at + draw(st.integers(1, 8))]
            case "splice":
                other = draw(st.sampled_from(originals))
                octets[at:] = other[draw(st.integers(0, len(other))) :]
            case _:
                octets[at:at] = octets[at : at + draw(st.integers(1, 64))]
    return bytes(octets)


@st.composite
def changed_der(draw: st.DrawFn, originals: Sequence[bytes], donors: Sequence[bytes]) -> bytes:
    """One of ``originals`` with elements swapped, doubled, taken out, retagged or taken over from a donor; still DER."""
    root = parse(draw(st.sampled_from(originals)))
    for _ in range(draw(st.integers(0, MAX_CHANGES))):
        nodes = root.walk()
        node = nodes[draw(st.integers(0, len(nodes) - 1))]
        inside: bool = draw(st.booleans())
        if node.inner and inside:
            _change_inside(draw, node)
        else:
            _change_itself(draw, node, donors)
    return root.encode()


def _change_inside(draw: st.DrawFn, node: Node) -> None:
    at: int = draw(st.integers(0, len(node.inner) - 1))
    match draw(st.sampled_from(("delete", "double", "swap"))):
        case "delete":
            del node.inner[at]
            node.content = b""
        case "double":
            node.inner.insert(at, node.inner[at])
        case _:
            other = draw(st.integers(0, len(node.inner) - 1))
            node.inner[at], node.inner[other] = node.inner[other], node.inner[at]


def _change_itself(draw: st.DrawFn, node: Node, donors: Sequence[bytes]) -> None:
    match draw(st.sampled_from(("tag", "content", "flip", "donor"))):
        case "tag":
            node.tag = draw(st.sampled_from(_TAGS))
        case "content":
            node.inner, node.content = [], draw(st.binary(max_size=20))
        case "flip" if node.content and not node.inner:
            at = draw(st.integers(0, len(node.content) - 1))
            flipped = bytes((node.content[at] ^ 1 << draw(st.integers(0, 7)),))
            node.content = node.content[:at] + flipped + node.content[at + 1 :]
        case _:
            given = parse(draw(st.sampled_from(donors))).walk()
            taken = given[draw(st.integers(0, len(given) - 1))]
            node.tag, node.content, node.inner = taken.tag, taken.content, list(taken.inner)
