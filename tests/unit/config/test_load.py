"""Loading: every fault at once with its place; environment; contradictions; what is not in this release."""

from __future__ import annotations

import contextlib
import os
from ipaddress import ip_address, ip_network
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay.config.config import SECTIONS, Config, policy_defaults
from relay.config.errors import ConfigErrors
from relay.config.load import load, read
from relay.policy.level import Level
from relay.policy.policy import InsecureMxPolicy, MatchName

NO_ENVIRONMENT: dict[str, str] = {}


def config_of(text: str = "", environ: dict[str, str] | None = None, base: Path = Path("/srv/relay")) -> Config:
    return read(text, name="relay.toml", base=base, environ=environ or NO_ENVIRONMENT, hostname="host.example")


def faults(text: str, environ: dict[str, str] | None = None, base: Path = Path("/srv/relay")) -> list[str]:
    with pytest.raises(ConfigErrors) as caught:
        config_of(text, environ, base)
    assert str(caught.value) == "\n".join(map(str, caught.value.errors))
    return [str(error) for error in caught.value.errors]


def test_an_empty_file_is_closed_by_default() -> None:
    config = config_of()
    assert config.smtpd.listen == (("127.0.0.1", 2525),)
    assert config.smtpd.mynetworks == (ip_network("127.0.0.0/8"), ip_network("::1/128"))
    assert config.http.listen == (("127.0.0.1", 8025),)
    assert config.smtp.tls_security_level is Level.DANE
    assert (config.smtp.tls_protocols, config.smtp.tls_mandatory_protocols) == (">=TLSv1", ">=TLSv1.2")
    assert config.relay.myhostname == config.helo_name == "host.example"
    assert config.dns.on_no_validation == "defer"
    assert config.queue_file == Path("/var/lib/dane-relay/queue.sqlite")
    assert config.place("relay", "myhostname") == "default relay.myhostname"


def test_values_are_read_as_the_program_uses_them() -> None:
    config = config_of(
        """
        [relay]
        state_dir = "state"
        [smtpd]
        listen = "127.0.0.1:25, [::1]:25"
        mynetworks = "127.0.0.0/8 [2001:db8::]/32"
        message_size_limit = "10MiB"
        timeout = "1h"
        [smtp]
        tls_security_level = "Secure"
        tls_secure_cert_match = "nexthop:hostname"
        tls_dane_insecure_mx_policy = "may"
        relayhost = ["[smart.example]", "b.example:587"]
        port = 2525
        connect_timeout = 2.5
        helo_name = "mail.example"
        [dns]
        nameservers = ["127.0.0.1", "[::1]:5353", "2001:db8::1"]
        trusted_nameservers = "127.0.0.53"
        [queue]
        maximal_queue_lifetime = "1w"
        [http]
        listen = ""
        [log]
        file = "mail.log"
        """
    )
    assert config.relay.state_dir == Path("/srv/relay/state")
    assert config.queue_file == Path("/srv/relay/state/queue.sqlite")
    assert config.smtpd.listen == (("127.0.0.1", 25), ("::1", 25))
    assert config.smtpd.mynetworks == (ip_network("127.0.0.0/8"), ip_network("2001:db8::/32"))
    assert config.smtpd.message_size_limit == 10 * 1024 * 1024
    assert config.smtpd.timeout == 3600
    assert config.smtp.tls_security_level is Level.SECURE
    assert config.smtp.tls_secure_cert_match == (MatchName.NEXTHOP, MatchName.HOSTNAME)
    assert config.smtp.tls_dane_insecure_mx_policy is InsecureMxPolicy.MAY
    assert [(str(hop), hop.port) for hop in config.relay_hosts] == [("[smart.example]", 2525), ("b.example:587", 587)]
    assert config.smtp.connect_timeout == 2.5
    assert config.helo_name == "mail.example"
    assert config.dns.nameservers == (("127.0.0.1", 53), ("::1", 5353), ("2001:db8::1", 53))
    assert config.dns.trusted_nameservers == (ip_address("127.0.0.53"),)
    assert config.queue.maximal_queue_lifetime == 7 * 86400
    assert config.http.listen == ()
    assert config.log.file == "/srv/relay/mail.log"


def test_six_mistakes_six_messages_in_order_of_line(tmp_path: Path) -> None:
    text = """\
[smpt]
port = 25

[smtp]
tls_security_levle = "dane"
port = "25"
connect_timeout = "30 parsecs"
tls_policy_maps = [
  "texthash:nope",
]
initial_destination_concurrency = 50
"""
    assert faults(text, base=tmp_path) == [
        "relay.toml:1: [smpt]: no such section; did you mean [smtp]?",
        "relay.toml:5: smtp.tls_security_levle: no such option; did you mean tls_security_level?",
        'relay.toml:6: smtp.port: expected a whole number from 1 to 65535, found "25"',
        (
            'relay.toml:7: smtp.connect_timeout: expected a duration such as "300s", "5m", "2h", "5d" or "1w", '
            'found "30 parsecs"; units are s, m, h, d, w'
        ),
        f"relay.toml:8: smtp.tls_policy_maps: {tmp_path}/nope: no such file; create it or leave the option out",
        (
            "relay.toml:11: smtp.initial_destination_concurrency: initial_destination_concurrency (50) is above "
            "destination_concurrency_limit (20)"
        ),
    ]


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("[smtp]\nport = = 3\n", "relay.toml:2:8"),
        ("[smtp\n", "relay.toml:1:6"),
        ("[smtp]\nport = [1,\n", "relay.toml:3:1"),
        ("[smtp]\nport = 1\nport = 2\nnonsense = 3\n[smtp]\n", "relay.toml:3:9"),
    ],
)
def test_a_syntax_error_alone_has_line_and_column(text: str, place: str) -> None:
    (message,) = faults(text, environ={"DANE_RELAY_NONSENSE": "1"})
    assert message.startswith(f"{place}: TOML syntax: ")
    assert "(at" not in message


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("port = 25", "port: this option stands outside of a section; put it under [smtp]"),
        ("nonsense = 25", "nonsense: this option stands outside of a section; every option stands in a section"),
        ("smtp = 25", "smtp: expected a section [smtp], found the number 25"),
        ("[smtp]\nsmtp_helo_nam = 1", "smtp.smtp_helo_nam: no such option; did you mean helo_name?"),
        ("[smtp]\ntls_cafile = 1", "smtp.tls_cafile: no such option; did you mean tls_CAfile?"),
        ("[smtp]\nmyhostname = 1", "smtp.myhostname: no such option; there is one in [relay]"),
        ("[relay]\ntls_cert_file = 1", "relay.tls_cert_file: no such option; there is one in [smtpd] and [smtp]"),
        ("[smtp]\nzzzz = 1", "smtp.zzzz: no such option; conf/relay.toml shows every option"),
    ],
)
def test_unknown_names(text: str, message: str) -> None:
    assert faults(text) == [f"relay.toml:{text.count(chr(10)) + 1}: {message}"]


@pytest.mark.parametrize(
    "line",
    [
        "smtpd.listen = 2525",
        'smtpd.listen = "localhost:25"',
        'smtpd.listen = "127.0.0.1"',
        'smtpd.listen = "127.0.0.1:65536"',
        'smtpd.listen = "::1:25"',
        'smtpd.listen = ["127.0.0.1:25", "127.0.0.1:25"]',
        'smtpd.mynetworks = "127.0.0.1/8"',
        'smtpd.mynetworks = ["lan"]',
        "smtpd.mynetworks = [1]",
        'smtpd.tls_security_level = "dane"',
        'smtpd.message_size_limit = "10 XB"',
        "smtpd.message_size_limit = -1",
        "smtpd.message_size_limit = true",
        "smtpd.recipient_limit = 0",
        "smtpd.timeout = 0",
        "smtpd.timeout = -3",
        "smtpd.timeout = true",
        "smtpd.timeout = inf",
        "smtpd.timeout = nan",
        'smtpd.timeout = "99999999d"',
        'smtp.tls_security_level = "halfdane"',
        "smtp.tls_security_level = 3",
        'smtp.tls_protocols = ">=TLSv9"',
        'smtp.tls_ciphers = "best"',
        'smtp.tls_fingerprint_digest = "crc32"',
        'smtp.tls_verify_cert_match = ""',
        'smtp.tls_verify_cert_match = "hostname, a..b"',
        'smtp.tls_dane_insecure_mx_policy = "secure"',
        'smtp.tls_policy_maps = "pgsql:/x"',
        'smtp.tls_policy_maps = "texthash:"',
        'smtp.transport_maps = "pgsql:/x"',
        'smtp.relayhost = "[a"',
        'smtp.bind_address = "::1"',
        'smtp.bind_address6 = "127.0.0.1"',
        'smtp.helo_name = "a b"',
        'smtp.tls_note_starttls_offer = "maybe"',
        "smtp.port = 0",
        "smtp.port = 25.0",
        'relay.myhostname = "a..b"',
        'relay.state_dir = ""',
        'dns.mode = "trust"',
        'dns.nameservers = "resolver.example"',
        'dns.trusted_nameservers = "127.0.0.1:53"',
        'dns.on_no_validation = "ignore"',
        'queue.url = "mysql://x"',
        'queue.url = "sqlite:"',
        'smtpd.unix_listen = "/run/"',
        'smtpd.unix_listen = ["unix:a", "a"]',
        "smtpd.unix_listen_mode = 660",
        'smtpd.unix_listen_mode = "u=rw"',
        'smtpd.unix_listen_mode = "4660"',
        'smtpd.unix_relay_users = ["joe:x"]',
        'smtpd.relay_clientcerts = "static:yes"',
        'smtpd.relay_clientcerts = "pcre:clients"',
        'smtpd.proxy_protocol_networks = "127.0.0.1/8"',
        'smtpd.auth_lockout_time = "0s"',
        'smtpd.peername_lookup = "maybe"',
        'log.format = "xml"',
        'log.syslog_name = "a b"',
        'log.file = "a\\nb"',
        "log.tls_loglevel = 5",
    ],
)
def test_values_of_the_wrong_kind(line: str) -> None:
    option = line.partition(" ")[0]
    (message,) = faults(f"# {option}\n{line}\n")
    assert message.startswith(f"relay.toml:2: {option}: ")
    assert "found" in message or "expected" in message or "twice" in message


@pytest.mark.parametrize(
    "line",
    [
        "mta_sts.enabled = true",
        "tlsrpt.enabled = true",
        'tlsrpt.organization = "x"',
        'queue.url = "postgresql://localhost/x"',
        'http.token_file = "token"',
        'http.listen = "0.0.0.0:8025"',
    ],
)
def test_what_is_not_in_this_release(line: str) -> None:
    (message,) = faults(line)
    assert message.startswith(f"relay.toml:1: {line.partition(' ')[0]}: ")
    assert "not in this release (0.1)" in message


def test_doors_beside_tcp(tmp_path: Path) -> None:
    smtpd = config_of(
        '[smtpd]\nunix_listen = ["unix:smtp", "/run/other"]\nunix_listen_mode = "600"\nunix_relay_users = "joe, 1000"\n'
        'proxy_protocol_networks = "10.0.0.0/8, [2001:db8::]/32"',
        base=tmp_path,
    ).smtpd
    assert smtpd.unix_listen == (tmp_path / "smtp", Path("/run/other"))
    assert (smtpd.unix_listen_mode, smtpd.unix_relay_users) == (0o600, ("joe", "1000"))
    assert [str(network) for network in smtpd.proxy_protocol_networks] == ["10.0.0.0/8", "2001:db8::/32"]
    assert config_of("").smtpd.unix_relay_users == ("*",)
    assert config_of('[smtpd]\nunix_relay_users = ""').smtpd.unix_relay_users == ()


def test_a_later_option_may_have_its_default() -> None:
    config_of("[tlsrpt]\nenabled = false\n[mta_sts]\nenabled = false\n")


@pytest.mark.parametrize(
    ("text", "place", "words"),
    [
        ('[smtpd]\nlisten = ""\ntls_cert_file = "f"', 3, "tls_cert_file without tls_key_file"),
        ('[smtpd]\nlisten = ""\ntls_key_file = "f"', 3, "tls_key_file without tls_cert_file"),
        ('[smtp]\ntls_cert_file = "f"', 2, "tls_cert_file without tls_key_file"),
        (
            '[bounce]\nnotify_classes = "bounce, 2bounce"\nnotice_recipient = "p@a.example"',
            2,
            "notify_classes has 2bounce",
        ),
        ('[smtpd]\ntls_security_level = "may"', 2, "needs tls_cert_file and tls_key_file"),
        ('[smtpd]\nrelay_clientcerts = "f"', 2, "relay_clientcerts needs clients that are asked"),
        ("[smtpd]\nmessage_size_limit = 0", 2, "would take no mail at all"),
        ("[smtpd]\nsoft_error_limit = 30", 2, "soft_error_limit (30) is above hard_error_limit (20)"),
        ("[smtpd]\nhard_error_limit = 3", 2, "soft_error_limit (10) is above hard_error_limit (3)"),
        ('[http]\nlisten = "127.0.0.1:2525"', 2, "127.0.0.1:2525 is also http.listen"),
        ("[smtp]\ndestination_concurrency_limit = 2", 2, "initial_destination_concurrency (5) is above"),
        ('[smtp]\ntls_security_level = "fingerprint"', 2, "needs fingerprints"),
        ('[dns]\non_no_validation = "degrade"\n[smtp]\ntls_security_level = "dane-only"', 2, "global level dane only"),
        ('[dns]\nmode = "trust-ad"\ntrust_anchor_file = "f"', 3, "others validate"),
        ('[queue]\nminimal_backoff_time = "2h"', 2, "minimal_backoff_time (2h) is above maximal_backoff_time (4000s)"),
        ('[queue]\nmaximal_backoff_time = "1m"', 2, "minimal_backoff_time (5m) is above maximal_backoff_time (1m)"),
    ],
)
def test_contradictions(tmp_path: Path, text: str, place: int, words: str) -> None:
    (tmp_path / "f").write_text("")
    (message,) = faults(text, base=tmp_path)
    assert message.startswith(f"relay.toml:{place}: ")
    assert words in message


def test_an_option_that_is_wrong_contradicts_nothing() -> None:
    (message,) = faults('[queue]\nminimal_backoff_time = "2h"\nmaximal_backoff_time = "soon"\n')
    assert message.startswith("relay.toml:3: ")


@pytest.mark.parametrize(
    "option",
    ["smtpd.tls_cert_file", "smtp.tls_CAfile", "smtp.tls_CApath", "smtp.tls_policy_maps", "smtp.transport_maps"],
)
def test_files_that_are_not_there(tmp_path: Path, option: str) -> None:
    extra = 'smtpd.tls_key_file = "key"\n' if "cert" in option else ""
    (tmp_path / "key").write_text("")
    (message,) = faults(f'{option} = "nope"\n{extra}', base=tmp_path)
    assert message.startswith(f"relay.toml:1: {option}: {tmp_path}/nope: no such ")


def test_a_directory_is_no_file(tmp_path: Path) -> None:
    (message,) = faults(f'smtp.tls_CAfile = "{tmp_path}"')
    assert message.endswith(": is no file")


def test_the_environment_wins_and_is_named(tmp_path: Path) -> None:
    config = config_of(
        "[smtp]\nport = 25\n",
        {
            "DANE_RELAY_SMTP__PORT": "2525",
            "DANE_RELAY_SMTP__TLS_SECURITY_LEVEL": "encrypt",
            "DANE_RELAY_SMTP__CONNECT_TIMEOUT": "3s",
            "DANE_RELAY_SMTP__TLS_CAPATH": str(tmp_path),
            "DANE_RELAY_SMTPD__LISTEN": '["127.0.0.1:26"]',
            "DANE_RELAY_HTTP__LISTEN": "",
            "DANE_RELAY_LOG__FILE": "1",
            "DANE_RELAY_MTA_STS__ENABLED": "false",
            "OTHER": "x",
        },
    )
    assert config.smtp.port == 2525
    assert config.smtp.tls_security_level is Level.ENCRYPT
    assert config.smtp.connect_timeout == 3
    assert config.smtp.tls_CApath == str(tmp_path)
    assert config.smtpd.listen == (("127.0.0.1", 26),)
    assert config.http.listen == ()
    assert config.log.file == "/srv/relay/1"  # a number as TOML, meant as text
    assert config.place("smtp", "port") == "DANE_RELAY_SMTP__PORT"


def test_faults_of_the_environment_come_after_the_files() -> None:
    messages = faults(
        "[smtp]\nport = 0\n",
        {
            "DANE_RELAY_SMTP__PROT": "25",
            "DANE_RELAY_QUEUE__URL": "x",
            "DANE_RELAY_FOO": "",
            "DANE_RELAY_LOG__FILE": "[",
        },
    )
    assert [message.partition(": ")[0] for message in messages] == [
        "relay.toml:2",
        "DANE_RELAY_FOO",
        "DANE_RELAY_QUEUE__URL",
        "DANE_RELAY_SMTP__PROT",
    ]
    assert "did you mean DANE_RELAY_SMTP__PORT?" in messages[-1]
    assert "DANE_RELAY_SECTION__KEY" in messages[1]


@pytest.mark.parametrize("value", ["{}", "[]", "0", "false"])
def test_a_host_name_of_the_wrong_type_is_no_missing_one(value: str) -> None:
    (message,) = faults(f"relay.myhostname = {value}")
    assert message.startswith("relay.toml:1: relay.myhostname: expected a host name, found ")


def test_a_host_name_of_the_system_that_is_none() -> None:
    with pytest.raises(ConfigErrors) as caught:
        read("", name="relay.toml", base=Path("/"), environ=NO_ENVIRONMENT, hostname="my host")
    assert str(caught.value).startswith("default relay.myhostname: relay.myhostname: expected a host name")


def test_places() -> None:
    config = config_of("[smtp]\n# port\nport = 26\n[queue]\nurl = 'sqlite:x'\n")
    assert config.place("smtp", "port") == "relay.toml:3"
    assert config.place("queue", "url") == "relay.toml:5"
    assert config.place("smtp", "tls_security_level") == "default smtp.tls_security_level"


def test_sections_are_frozen() -> None:
    with pytest.raises(ValueError, match="frozen"):
        config_of().smtp.port = 26


def test_policy_defaults() -> None:
    config = config_of(
        """
        [smtp]
        tls_security_level = "dane"
        tls_verify_cert_match = "nexthop"
        tls_secure_cert_match = "hostname"
        tls_dane_insecure_mx_policy = "encrypt"
        tls_protocols = ">=TLSv1.1"
        tls_mandatory_protocols = ">=TLSv1.3"
        tls_ciphers = "low"
        tls_mandatory_ciphers = "high"
        tls_fingerprint_digest = "sha512"
        [dns]
        on_no_validation = "degrade"
        """
    )
    defaults = policy_defaults(config)
    assert defaults.level is Level.DANE
    assert (defaults.level_rule.place, defaults.level_rule.text) == ("relay.toml:3", 'smtp.tls_security_level = "dane"')
    assert defaults.verify_match == (MatchName.NEXTHOP,)
    assert defaults.secure_match == (MatchName.HOSTNAME,)
    assert defaults.insecure_mx is InsecureMxPolicy.ENCRYPT
    assert (defaults.protocols, defaults.mandatory_protocols) == (">=TLSv1.1", ">=TLSv1.3")
    assert (defaults.ciphers, defaults.mandatory_ciphers) == ("low", "high")
    assert defaults.fingerprint_digest == "sha512"
    assert defaults.degrade_without_validation
    assert not policy_defaults(config_of()).degrade_without_validation


def test_resolving_has_its_options(tmp_path: Path) -> None:
    (tmp_path / "root.key").write_text("")
    config = config_of(
        """
        [dns]
        mode = "validate"
        trust_anchor_file = "root.key"
        probe_bogus_name = "Bogus.Example."
        """,
        base=tmp_path,
    )
    dns = config.dns
    assert (dns.mode, dns.trust_anchor_file, dns.probe_bogus_name) == (
        "validate",
        str(tmp_path / "root.key"),
        "bogus.example",
    )
    (message,) = faults('[dns]\ntrust_anchor_file = "gone.key"', base=tmp_path)
    assert f"dns.trust_anchor_file: {tmp_path}/gone.key: no such file" in message


@pytest.mark.skipif(os.geteuid() == 0 and not hasattr(os, "seteuid"), reason="needs a user who may not do everything")
def test_a_file_in_a_directory_that_this_user_may_not_enter(tmp_path: Path) -> None:
    closed = tmp_path / "closed"
    closed.mkdir()
    (closed / "key.pem").write_text("secret")
    (tmp_path / "cert.pem").write_text("")
    closed.chmod(0)
    root = os.geteuid() == 0
    with contextlib.ExitStack() as stack:
        for directory in (tmp_path, *tmp_path.parents[:3]):
            mode = directory.stat().st_mode
            directory.chmod(mode | 0o011)
            stack.callback(directory.chmod, mode)
        if root:
            os.seteuid(65534)
            stack.callback(os.seteuid, 0)
        messages = faults(
            '[smtpd]\ntls_security_level = "may"\ntls_cert_file = "cert.pem"\ntls_key_file = "closed/key.pem"',
            base=tmp_path,
        )
    closed.chmod(0o700)
    (message,) = (each for each in messages if "closed" in each)
    assert message.endswith(
        "closed/key.pem: cannot be reached by this user; change the owner or mode of a directory above it"
    )


def test_load_reads_the_file_it_is_given(tmp_path: Path) -> None:
    path = tmp_path / "relay.toml"
    path.write_bytes(b"[smtp]\r\nport = 26\r\n[log]\r\nfile = 'x'\r\n")
    config = load(path, NO_ENVIRONMENT, hostname="h.example")
    assert config.place("log", "file") == f"{path}:4"
    assert config.log.file == str(tmp_path / "x")


def test_a_file_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(ConfigErrors, match=r"nope\.toml: cannot be read: No such file or directory"):
        load(tmp_path / "nope.toml", NO_ENVIRONMENT, hostname="h.example")
    path = tmp_path / "latin.toml"
    path.write_bytes(b"[log]\nfile = '\xe4'\n")
    with pytest.raises(ConfigErrors, match=r"latin\.toml:2: TOML syntax: this line is no UTF-8 text"):
        load(path, NO_ENVIRONMENT, hostname="h.example")


_OPTIONS = [(section, key) for section, model in SECTIONS.items() for key in model.model_fields]


@given(st.sampled_from(_OPTIONS), st.text(max_size=40))
def test_any_text_in_the_environment_is_a_value_or_a_fault(option: tuple[str, str], text: str) -> None:
    variable = f"DANE_RELAY_{option[0]}__{option[1]}".upper()
    places: set[str] = set()
    try:
        places = {config_of("", {variable: text}).place(*option)}
    except ConfigErrors as refused:
        places = {error.place for error in refused.errors}
    assert places == {variable}
