"""POSIX extended and Perl-compatible expressions, put into the notation of the ``regex`` library. Pure.

What means the same in both is copied. What the library would read otherwise than Postfix's library is put into other
words, or refused: a rule that is refused defers its mail, one that is misread would send it.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from relay.maps.notation import BadNotation

_INTERVAL = re.compile(r"\{[0-9]{1,4}(?:,[0-9]{0,4})?\}")
_QUANTIFIERS = "*+?"
# Letters and digits that mean the same after a backslash in PCRE2 and in the regex library.
_PCRE_ESCAPES = frozenset("123456789dDwWsSbBAZGntrfa")
_PCRE_HEX = re.compile(r"\\x[0-9A-Fa-f]{2}")
_PCRE_PROPERTY = re.compile(r"\\[pP](?:\{\^?[A-Za-z_&]+\}|[A-Z])")
_PCRE_GROUP = re.compile(
    r"\(\?(?:[:>=!|]|<[=!]|P?<[A-Za-z_]\w*>|P[=>][A-Za-z_]\w*\)|R\)|[+-]?[0-9]+\)|&[A-Za-z_]\w*\)|#[^)]*\)"
    r"|\([0-9]+\)|[imsx]*(?:-[imsx]+)?:)",
    re.ASCII,
)
_LEADING_FLAGS = re.compile(r"\(\?([imsx]*)(?:-([imsx]+))?\)")
# What the GNU C library adds to POSIX, and how the regex library writes it.
_GNU_ESCAPES = {**dict.fromkeys("wWsSbB", ""), "<": r"\m", ">": r"\M", "`": r"\A", "'": r"\Z"}
_CLASSES = ("alpha", "digit", "alnum", "upper", "lower", "space", "blank", "punct", "print", "graph", "cntrl", "xdigit")


@dataclass(frozen=True, slots=True)
class Translated:
    """An expression for the ``regex`` library.

    :param on: flags that the expression itself turns on, out of ``imsx``; ``off`` those it turns off.
    """

    text: str
    on: str = ""
    off: str = ""


def from_posix(text: str) -> Translated:
    """Put a POSIX extended regular expression (regex(7), as the GNU C library reads it) into other words.

    :raises BadNotation: if POSIX leaves undefined what it means, or if it has what this relay does not understand.
    """
    out: list[str] = []
    position, repeatable = 0, False
    while position < len(text):
        character = text[position]
        if character == "\\":
            out.append(_posix_escape(text[position : position + 2]))
            position, repeatable = position + 2, True
        elif character == "[":
            piece, position = _bracket(text, position, posix=True)
            out.append(piece)
            repeatable = True
        elif character in _QUANTIFIERS or character == "{":
            interval = _INTERVAL.match(text, position)
            piece = interval[0] if interval else character
            if piece == "{" or not repeatable:
                raise BadNotation(f'nothing before "{character}" that could be repeated, or no number in braces')
            out.append(piece)
            position, repeatable = position + len(piece), False
        elif text.startswith("(?", position):
            raise BadNotation('"(?" is no POSIX expression; write pcre: instead of regexp:')
        else:
            out.append("\\" + character if character in "}]" else character)
            position, repeatable = position + 1, character not in "(|^"
    return Translated("".join(out))


def _posix_escape(pair: str) -> str:
    if len(pair) < 2:
        raise BadNotation("a backslash at the end")
    letter = pair[1]
    if letter in _GNU_ESCAPES:
        return _GNU_ESCAPES[letter] or pair
    if letter.isascii() and letter.isdigit():
        if letter == "0":
            raise BadNotation(r"\0 is no reference to a group")
        return pair
    if letter.isalpha():
        raise BadNotation(f'"{pair}" means nothing in a POSIX expression; write [0-9] and the like, or pcre:')
    return re.escape(letter)


def _bracket(text: str, start: int, *, posix: bool) -> tuple[str, int]:
    """One bracket expression and where it ends. In POSIX a backslash in it stands for itself."""
    position = start + 1
    out = ["["]
    if text.startswith("^", position):
        out.append("^")
        position += 1
    first = position
    while position < len(text):
        character = text[position]
        if character == "]" and position > first:
            return "".join(out) + "]", position + 1
        if text.startswith(("[:", "[.", "[="), position):
            end = text.find(f"{text[position + 1]}]", position + 2)
            name = text[position + 2 : end] if end > 0 else ""
            if text[position + 1] != ":" or name.removeprefix("" if posix else "^") not in _CLASSES:
                raise BadNotation(f'not understood in brackets: "{text[position : position + 12]}"')
            out.append(f"[:{name}:]")
            position = end + 2
        elif character == "\\" and not posix:
            piece, position = _pcre_escape(text, position)
            out.append(piece)
        else:
            out.append("\\" + character if character in "[]\\&~|^" else character)
            position += 1
    raise BadNotation("a bracket [ without its ]")


def from_pcre(text: str, *, extended: bool) -> Translated:
    """Put a Perl-compatible expression (pcre2pattern(3)) into other words.

    :param extended: whether white space and ``#`` are comment (flag x).
    :raises BadNotation: if it has what this relay does not understand.
    """
    leading = _LEADING_FLAGS.match(text)
    on, off = (leading[1], leading[2] or "") if leading else ("", "")
    extended = (extended or "x" in on) and "x" not in off
    position = leading.end() if leading else 0
    out: list[str] = []
    while position < len(text):
        character = text[position]
        if text.startswith("\\Q", position):
            end = text.find("\\E", position)
            out.append(re.escape(text[position + 2 : end if end >= 0 else len(text)]))
            position = end + 2 if end >= 0 else len(text)
        elif character == "\\":
            piece, position = _pcre_escape(text, position)
            out.append(piece)
        elif character == "[":
            piece, position = _bracket(text, position, posix=False)
            out.append(piece)
        elif text.startswith("(*", position):
            raise BadNotation(f'not understood: "{text[position : position + 12]}"')
        elif text.startswith("(?", position):
            group = _PCRE_GROUP.match(text, position)
            if group is None:
                raise BadNotation(f'not understood: "{text[position : position + 12]}"')
            out.append("" if group[0].startswith("(?#") else group[0])
            position = group.end()
        elif character == "{":
            # The library has a notation of its own in braces, where PCRE finds plain text.
            interval = _INTERVAL.match(text, position)
            if text.startswith("{,", position):
                raise BadNotation('"{,n}" means different things in different releases of PCRE; write {0,n}')
            out.append(interval[0] if interval else r"\{")
            position += len(interval[0]) if interval else 1
        elif character == "#" and extended:
            raise BadNotation("a comment would hide the rest of the line; write \\# for the sign")
        else:
            out.append("\\" + character if character in "}]" else character)
            position += 1
    return Translated("".join(out), on, off)


def _pcre_escape(text: str, position: int) -> tuple[str, int]:
    pair = text[position : position + 2]
    if len(pair) < 2:
        raise BadNotation("a backslash at the end")
    longer = _PCRE_HEX.match(text, position) or _PCRE_PROPERTY.match(text, position)
    if longer:
        return longer[0], longer.end()
    letter = pair[1]
    if letter == "z":
        return r"\Z", position + 2
    if letter.isalnum() and letter not in _PCRE_ESCAPES:
        raise BadNotation(f'not understood: "{text[position : position + 8]}"')
    return (pair if letter.isalnum() else re.escape(letter)), position + 2
