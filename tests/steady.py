"""What commands print, with what differs from run to run put into words, so that documents can be compared."""

from __future__ import annotations

import re

# What differs from run to run, and from machine to machine (which groups OpenSSL prefers).
VOLATILE = (
    (re.compile(r"127\.0\.0\.\d+"), "ADDRESS"),
    (re.compile(r"(?<=ADDRESS\]:|lab\.test:)\d+"), "PORT"),
    (re.compile(r"(?<=ADDRESS:)\d+"), "PORT"),
    (re.compile(r"(?<=hosts\.test:)\d+"), "PORT"),
    (re.compile(r"(?<=_)\d+(?=\._tcp\.)"), "PORT"),
    (re.compile(r'(?<="port": )\d+'), "PORT"),
    (re.compile(r"\b[0-9A-Fa-f]{32,}\b"), "DIGEST"),
    (re.compile(r"delay=[\d.]+, delays=[\d./]+"), "DELAYS"),
    (re.compile(r"\d{4}-\d\d-\d\dT[\d:]+\+00:00"), "TIME"),
    (re.compile(r"TLSv1\.[23] with cipher [^\n\"]*"), "SESSION"),
)


def steady(text: str) -> str:
    for pattern, word in VOLATILE:
        text = pattern.sub(word, text)
    return text
