"""References in main.cf replaced as ``postconf -x`` of Debian's Postfix replaces them."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from relay.importing.draft import Draft
from relay.importing.files import read_main
from relay.importing.source import Source
from tests.interop import servers
from tests.interop.postfix import library_path

pytestmark = pytest.mark.interop

_SET = """\
myhostname = mail.example.test
compatibility_level = 3.10
one = first
two = ${one} and
  $(one)
"""
# Any parameters of Postfix that are plain text: each gets one of the values.
_NAMES = (
    "smtpd_banner", "smtp_helo_name", "myorigin", "empty_address_recipient", "double_bounce_sender", "bounce_notice_recipient",
    "delay_notice_recipient", "error_notice_recipient", "2bounce_notice_recipient", "mail_release_date", "syslog_name",
    "smtpd_helo_restrictions", "smtpd_client_restrictions", "smtpd_sender_restrictions", "smtpd_data_restrictions",
    "smtpd_etrn_restrictions", "smtpd_end_of_data_restrictions", "header_checks", "body_checks", "mime_header_checks",
    "nested_header_checks", "relayhost", "transport_maps", "canonical_maps", "sender_canonical_maps",
)  # fmt: skip
_VALUES = (
    "$two", "${two}x", "$one$one", "$$one", "${one?yes}", "${nothing?yes}", "${nothing:no}", "${one:no}",
    "${one?{yes $one}:{no}}", "${nothing?{yes}:{no $one}}", "${nothing?{10}:{300}}s", "${{$one} == {first} ? {same} : {other}}",
    "${{$one} != {first} ? {other} : {same}}", "${{2} < {10} ? {number}:{text}}", "${{b} > {a} ? {after}}",
    "${{$compatibility_level} <level {3.6} ? {old} : {new}}", "${{$compatibility_level} >=level {3.9} ? {new}}",
    "${{3.6} <level {2} ? {old} : {}}", "${{$one}=={first}?$two}", "$mydomain, localhost.$mydomain", "${one?$two}",
    "${{$nothing} == {} ? {empty}}", "$mail_name", "hash:$config_directory/x, proxy:hash:/y", "${one?{a}}${nothing?{b}}",
)  # fmt: skip


def test_as_postconf(tmp_path: Path) -> None:
    postfix = servers.require("postfix")
    text = _SET + "".join(f"{name} = {value}\n" for name, value in zip(_NAMES, _VALUES, strict=True))
    (tmp_path / "main.cf").write_text(text)
    (tmp_path / "master.cf").write_text("")
    done = subprocess.run(
        [postfix.with_name("postconf"), "-c", tmp_path, "-x", "-h", *_NAMES],
        env={**os.environ, **library_path(postfix)},
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    draft = Draft(tmp_path)
    known = {"config_directory": str(tmp_path), "mydomain": "example.test"}
    source = Source(read_main(text, "main.cf").parameters, known, draft)
    ours = [source.value(name) for name in _NAMES]
    assert ours == [line.strip() for line in done.stdout.splitlines()], done.stderr
    assert not draft.remarks
