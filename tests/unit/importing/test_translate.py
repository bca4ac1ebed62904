"""What becomes of each parameter: translated, told with its line, or written so that nothing goes past it."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

import pytest

from relay.config.load import read
from relay.importing.draft import Draft, Sort
from relay.importing.translate import translate

MASTER = "smtp inet n - y - - smtpd\nsmtp unix - - y - - smtp\n"
QUIET = "mydestination =\nmynetworks = 127.0.0.0/8\nsmtp_tls_CApath = /etc/ssl/certs\nsmtp_tls_security_level = may\n"


def draft_of(main: str, master: str = MASTER) -> Draft:
    return translate(main, master, name="main.cf", base=Path("/etc/postfix"), hostname="host.example.test")


def options(main: str, master: str = MASTER) -> dict[str, Any]:
    """What is set, by ``section.key``."""
    document = tomllib.loads(draft_of(main, master).document("main.cf"))
    return {f"{section}.{key}": value for section, keys in document.items() for key, value in keys.items()}


def remarks(main: str, master: str = MASTER, *, quiet: bool = True) -> list[str]:
    text = f"{main}\n{QUIET}" if quiet else main
    return [str(remark) for remark in draft_of(text, master).remarks]


@pytest.mark.parametrize(
    ("line", "option", "value"),
    [
        ("myhostname = a.example", "relay.myhostname", "a.example"),
        ("smtp_tls_security_level = secure", "smtp.tls_security_level", "secure"),
        ("smtp_use_tls = yes", "smtp.tls_security_level", "may"),
        ("smtp_enforce_tls = yes", "smtp.tls_security_level", "verify"),
        ("smtp_enforce_tls = yes\nsmtp_tls_enforce_peername = no", "smtp.tls_security_level", "encrypt"),
        ("relayhost = $mydomain", "smtp.relayhost", ["example.test"]),
        ("relayhost = [a.example]:submission, b.example:26", "smtp.relayhost", ["[a.example]:587", "b.example:26"]),
        ("default_transport = smtp:[a.example]\nrelayhost = b", "smtp.relayhost", ["[a.example]"]),
        ("myorigin = a.example\nerror_notice_recipient = ops", "bounce.error_notice_recipient", "ops@a.example"),
        ("2bounce_notice_recipient = x@b.example", "bounce.double_bounce_notice_recipient", "x@b.example"),
        ("myorigin = a.example\nnotify_classes = data, policy", "bounce.notify_classes", ["policy"]),
        ("fallback_relay = [a.example]", "smtp.fallback_relay", ["[a.example]"]),
        ("smtp_fallback_relay = [a.example]:smtps", "smtp.fallback_relay", ["[a.example]:465"]),
        ("transport_maps = proxy:hash:$config_directory/transport", "smtp.transport_maps", ["hash:/etc/postfix/transport"]),
        (
            "smtp_tls_policy_maps = inline:{ { a.example = secure match=nexthop }, b.example=may }, texthash:/x",
            "smtp.tls_policy_maps",
            ["inline:{ { a.example = secure match=nexthop }, b.example=may }", "texthash:/x"],
        ),
        ("smtp_tls_verify_cert_match = hostname, nexthop", "smtp.tls_verify_cert_match", "hostname, nexthop"),
        ("smtp_tls_mandatory_protocols = !SSLv2, !SSLv3, !TLSv1", "smtp.tls_mandatory_protocols", "!SSLv2 !SSLv3 !TLSv1"),
        ("smtp_tcp_port = submission", "smtp.port", 587),
        ("inet_protocols = ipv4, ipv6", "smtp.inet_protocols", "all"),
        ("inet_protocols = ipv6", "smtp.inet_protocols", "ipv6"),
        ("smtp_connect_timeout = 20", "smtp.connect_timeout", "20s"),
        ("smtp_helo_timeout = ${stress?{10}:{120}}s", "smtp.helo_timeout", "2m"),
        ("maximal_queue_lifetime = 3", "queue.maximal_queue_lifetime", "3d"),
        ("bounce_queue_lifetime = 12h", "queue.bounce_queue_lifetime", "12h"),
        ("minimal_backoff_time = 10m", "queue.minimal_backoff_time", "10m"),
        ("soft_bounce = yes", "queue.soft_bounce", True),
        ("message_size_limit = 52428800", "smtpd.message_size_limit", 52428800),
        ("default_destination_concurrency_limit = 7", "smtp.destination_concurrency_limit", 7),
        (
            "default_destination_concurrency_limit = 7\nsmtp_destination_concurrency_limit = 3",
            "smtp.destination_concurrency_limit",
            3,
        ),
        ("mynetworks = 127.0.0.0/8, [::1]/128 192.0.2.0/24", "smtpd.mynetworks", ["127.0.0.0/8", "::1/128", "192.0.2.0/24"]),
        ("inet_interfaces = loopback-only", "smtpd.listen", ["127.0.0.1:25", "[::1]:25"]),
        ("inet_interfaces = all\ninet_protocols = ipv4", "smtpd.listen", ["0.0.0.0:25"]),
        ("inet_interfaces = 192.0.2.1, [2001:db8::1], localhost", "smtpd.listen", [
            "192.0.2.1:25", "[2001:db8::1]:25", "127.0.0.1:25", "[::1]:25"
        ]),
        ("smtp_tls_loglevel = 0", "log.tls_loglevel", 0),
        ("maillog_file = /var/log/maillog", "log.file", "/var/log/maillog"),
        ("smtp_tls_cert_file = /c.pem", "smtp.tls_key_file", "/c.pem"),
        ("smtp_tls_cert_file = /c.pem\nsmtp_tls_key_file = /k.pem", "smtp.tls_key_file", "/k.pem"),
        ("smtp_tls_chain_files = /both.pem\nsmtp_tls_cert_file = /c.pem", "smtp.tls_cert_file", "/both.pem"),
    ],
)  # fmt: skip
def test_what_has_a_counterpart(line: str, option: str, value: object) -> None:
    assert options(line)[option] == value


def test_where_postfix_differs_by_default_it_is_written_out() -> None:
    written = options("")
    assert written["smtp.tls_security_level"] == "none"
    assert written["smtp.tls_mandatory_protocols"] == ">=TLSv1"
    assert written["smtp.tls_fingerprint_digest"] == "md5"
    assert written["smtpd.listen"] == ["0.0.0.0:25", "[::]:25"]
    assert options("compatibility_level = 3.6")["smtp.tls_fingerprint_digest"] == "sha256"
    assert options("compatibility_level = 3.11")["smtp.tls_security_level"] == "may"
    told = remarks("", quiet=False)
    assert any("mynetworks: not set" in one for one in told)
    assert any("smtp_tls_CAfile, smtp_tls_CApath: nobody set them" in one for one in told)
    assert any(
        "mydestination: mail for host.example.test, localhost.example.test, localhost did not go" in one for one in told
    )


def test_dane_without_dnssec_is_what_postfix_took_it_for() -> None:
    line = "smtp_tls_security_level = dane"
    assert options(line)["smtp.tls_security_level"] == "may"
    assert any(
        "main.cf:1: differs: smtp_tls_security_level = dane without" in one for one in remarks(line, quiet=False)
    )
    assert options(f"{line}\nsmtp_dns_support_level = dnssec")["smtp.tls_security_level"] == "dane"


def test_each_parameter_without_a_counterpart_is_named_with_its_line() -> None:
    told = remarks(
        "header_checks = regexp:/x\nsmtp_skip_5xx_greeting = yes\nsmtp_generic_maps = hash:/y\n"
        "mailbox_size_limit = 0\nmine = 1\nsmtp_bind_address = $mine\nsmtpd_recipient_restrictions = reject_rbl_client x"
    )
    assert "main.cf:1: no counterpart: header_checks = regexp:/x" in told
    assert "main.cf:3: no counterpart: smtp_generic_maps = hash:/y" in told
    assert "main.cf:4: of no consequence here: mailbox_size_limit" in told
    assert "main.cf:7: no counterpart: smtpd_recipient_restrictions: reject_rbl_client, x" in told
    assert not any("5xx" in one or " mine" in one for one in told)


def test_a_map_that_cannot_be_read_here_keeps_the_relay_from_starting() -> None:
    draft = draft_of("smtp_tls_policy_maps = mysql:/etc/postfix/policy.cf, texthash:/x\n")
    (remark,) = [remark for remark in draft.remarks if remark.is_error]
    assert remark.place == "main.cf:1"
    document = draft.document("main.cf")
    assert 'tls_policy_maps = ["mysql:/etc/postfix/policy.cf", "texthash:/x"]' in document
    with pytest.raises(Exception, match="expected policy maps"):
        read(document, name="relay.toml", base=Path("/"), environ={}, hostname="x.example")


@pytest.mark.parametrize(
    ("line", "text"),
    [
        ("mynetworks = 10.0.0.0/8, !10.1.0.0/16", "mynetworks: !10.1.0.0/16: cannot be written here"),
        ("mynetworks = cidr:/etc/postfix/networks", "mynetworks: cidr:/etc/postfix/networks: cannot be written here"),
        ("smtp_mx_session_limit = 0", "smtp_mx_session_limit: smtp.mx_session_limit was left as it is: expected"),
        ("relayhost = ${broken", 'relayhost: cannot be read: "{broken" is not closed'),
        ("default_transport = uucp", 'default_transport: mail that no map routes went to "uucp"'),
        ("smtp_tls_per_site = hash:/x", "smtp_tls_per_site = hash:/x: there is nothing like it here"),
        ("content_filter = scan:[127.0.0.1]:10024", "content_filter = scan:[127.0.0.1]:10024: there is nothing"),
        ("inet_interfaces = $myhostname", "inet_interfaces: write the addresses of host.example.test"),
    ],
)
def test_what_must_be_looked_at(line: str, text: str) -> None:
    (remark,) = [remark for remark in draft_of(f"{QUIET}{line}\n").remarks if remark.sort is Sort.LOOK]
    assert text in remark.text
    assert remark.place == "main.cf:5"


def test_an_exception_that_cannot_be_written_lets_nobody_in() -> None:
    assert "smtpd.mynetworks" not in options("mynetworks = 10.0.0.0/8, !10.1.0.0/16")


def test_settings_of_the_client_service_hold_here_and_those_of_others_are_named() -> None:
    master = (
        "smtp inet n - y - - smtpd\n"
        "submission inet n - y - - smtpd\n"
        "  -o syslog_name=postfix/submission\n"
        "  -o smtpd_tls_security_level=encrypt\n"
        "465 inet n - y - - smtpd\n"
        "  -o smtpd_tls_wrappermode=yes\n"
        "smtp unix - - y - - smtp\n"
        "  -o smtp_helo_timeout=7\n"
        "relay unix - - y - - smtp\n"
        "  -o smtp_fallback_relay=\n"
        "careful unix - - y - - smtp\n"
        "  -o smtp_tls_security_level=secure\n"
        "cleanup unix n - y - 0 cleanup\n"
        "  -o header_checks=\n"
    )
    draft = draft_of(QUIET, master)
    told = [str(remark) for remark in draft.remarks]
    assert draft.settings["smtp", "helo_timeout"].text == '"7s"'
    assert draft.settings["smtp", "helo_timeout"].because == "master.cf:8: smtp_helo_timeout"
    assert '"0.0.0.0:587"' in draft.settings["smtpd", "listen"].text
    assert any(
        one.startswith("master.cf:4: no counterpart: submission smtpd: -o smtpd_tls_security_level") for one in told
    )
    assert any(one.startswith("master.cf:11: to be looked at: transport careful") for one in told)
    assert "master.cf:12: no counterpart: careful smtp: -o smtp_tls_security_level = secure" in told
    assert "master.cf:14: no counterpart: cleanup cleanup: -o header_checks" in told
    assert not any("relay smtp" in one or "syslog_name" in one for one in told)


def test_hostile_text_cannot_leave_its_comment() -> None:
    document = draft_of("header_checks = a\x0b\x85b\udcff\x7f\nmyhostname = a.example\n").document("main\n.cf")
    assert tomllib.loads(document)["relay"] == {"myhostname": "a.example"}
    document.encode()


def test_passwords_in_parameters_are_not_repeated() -> None:
    told = remarks("smtp_secret_password = hunter2\n")
    assert not any("hunter2" in one for one in told)
    assert any("smtp_secret_password = ..." in one for one in told)


def test_all_that_is_written_is_read_back() -> None:
    main = "relayhost = [a.example]:587\nsmtp_tls_security_level = encrypt\nsmtp_connect_timeout = 5s\n" + QUIET
    config = read(
        draft_of(main.replace("smtp_tls_CApath = /etc/ssl/certs\n", "")).document("main.cf"),
        name="relay.toml",
        base=Path("/etc/postfix"),
        environ={},
        hostname="host.example.test",
    )
    assert [str(hop) for hop in config.relay_hosts] == ["[a.example]:587"]
    assert config.smtp.connect_timeout == 5.0


CLIENTCERTS = (
    "smtpd_tls_cert_file = /c\nsmtpd_tls_security_level = may\nrelay_clientcerts = hash:/etc/postfix/clients\n"
    "smtpd_tls_ask_ccert = yes\n"
)


@pytest.mark.parametrize(
    ("main", "maps", "remark"),
    [
        (
            "smtpd_relay_restrictions = permit_tls_clientcerts, reject\n",
            None,
            "to be looked at: relay_clientcerts: has md5",
        ),
        (
            "compatibility_level = 3.6\nsmtpd_recipient_restrictions = permit_mynetworks permit_tls_clientcerts reject\n",
            ["hash:/etc/postfix/clients"],
            "",
        ),
        (
            "compatibility_level = 3.6\n",
            None,
            "of no consequence here: relay_clientcerts, without permit_tls_clientcerts",
        ),
        (
            "compatibility_level = 3.6\nsmtpd_relay_restrictions = permit_tls_clientcerts\nsmtpd_tls_ask_ccert = no\n",
            None,
            "of no consequence here: relay_clientcerts, without permit_tls_clientcerts and smtpd_tls_ask_ccert",
        ),
    ],
)
def test_client_certificates_let_in_whom_they_let_in_there(main: str, maps: list[str] | None, remark: str) -> None:
    assert options(CLIENTCERTS + main).get("smtpd.relay_clientcerts") == maps
    about = [each for each in remarks(CLIENTCERTS + main) if "relay_clientcerts" in each]
    assert len(about) == bool(remark)
    assert all(remark in each for each in about)


def test_proxies_are_named_by_whoever_imports() -> None:
    (remark,) = (each for each in remarks("smtpd_upstream_proxy_protocol = haproxy") if "proxy" in each)
    assert "to be looked at: smtpd_upstream_proxy_protocol: write the addresses of your proxies into" in remark


@pytest.mark.parametrize(
    ("main", "master", "place"),
    [
        ("smtpd_sasl_auth_enable = yes", MASTER, "main.cf:1"),
        (
            "",
            f"{MASTER}submission inet n - y - - smtpd\n  -o smtpd_sasl_auth_enable=yes\n",
            "master.cf:4",
        ),
        ("", f"smtp inet n - y - - smtpd -o smtpd_sasl_auth_enable=yes\n{MASTER}", "master.cf:1"),
    ],
)
def test_users_who_log_in_are_to_be_added_by_whoever_imports(main: str, master: str, place: str) -> None:
    (remark,) = (each for each in remarks(main, master) if "to be looked at: smtpd_sasl_auth_enable" in each)
    assert remark.startswith(place), remark
    assert "users_file" in remark
    assert "`dane-relay user add NAME -c relay.toml`" in remark
    assert not [each for each in remarks("smtpd_sasl_auth_enable = no", MASTER) if "users_file" in each]
