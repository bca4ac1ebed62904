"""main.cf and master.cf as Postfix reads them: continuations, repeats, options of services, and what is no line at all."""

from __future__ import annotations

from relay.importing.files import read_main, read_master


def test_lines_and_continuations() -> None:
    text = "# a comment\nmyhostname = a.example\nmynetworks = 127.0.0.0/8\n# in between\n  192.0.2.0/24\n\n\t[::1]/128\nempty =\n"
    read = read_main(text, "main.cf")
    assert not read.problems
    assert {name: (each.value, each.place) for name, each in read.parameters.items()} == {
        "myhostname": ("a.example", "main.cf:2"),
        "mynetworks": ("127.0.0.0/8 192.0.2.0/24 [::1]/128", "main.cf:3"),
        "empty": ("", "main.cf:8"),
    }


def test_the_last_of_two_counts_and_is_told() -> None:
    read = read_main("relayhost = a\nrelayhost = b\n", "main.cf")
    assert read.parameters["relayhost"].value == "b"
    (problem,) = read.problems
    assert (problem.place, "main.cf:1" in problem.text) == ("main.cf:2", True)


def test_what_is_no_setting_is_told() -> None:
    read = read_main(" starts = white\nno setting\nwhat ever = 1\n", "main.cf")
    assert [problem.place for problem in read.problems] == ["main.cf:1", "main.cf:2", "main.cf:3"]
    assert not read.parameters


def test_services_and_their_options() -> None:
    text = (
        "smtp      inet  n       -       y       -       -       smtpd\n"
        "587       inet  n       -       y       -       -       smtpd -v\n"
        "  -o syslog_name=postfix/submission\n"
        "# -o commented=out\n"
        "  -o { smtpd_client_restrictions = permit_mynetworks, reject }\n"
        "  -osmtpd_tls_security_level=encrypt\n"
        "cyrus     unix  -       n       n       -       -       pipe\n"
        "  flags=DRX user=cyrus argv=/cyrus/bin/deliver -e -r ${sender}\n"
        "short     inet  n\n"
    )
    read = read_master(text, "master.cf")
    assert [(one.name, one.kind, one.program, one.place) for one in read.services] == [
        ("smtp", "inet", "smtpd", "master.cf:1"),
        ("587", "inet", "smtpd", "master.cf:2"),
        ("cyrus", "unix", "pipe", "master.cf:7"),
    ]
    assert [(each.name, each.value, each.place) for each in read.services[1].options] == [
        ("syslog_name", "postfix/submission", "master.cf:3"),
        ("smtpd_client_restrictions", "permit_mynetworks, reject", "master.cf:5"),
        ("smtpd_tls_security_level", "encrypt", "master.cf:6"),
    ]
    assert [problem.place for problem in read.problems] == ["master.cf:9"]
