"""The configuration files of the lab's servers: NSD, Unbound, Postfix, Exim, OpenSMTPD. Pure.

Each names its files below one directory, which is the lab's wherever it runs: on this machine or in a container.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePath
from typing import Final

from relay.lab.destination import Host
from relay.lab.real.plan import SMTP_PORT, Plan
from relay.lab.script import StartTls, TlsRange

MAILBOX_OWNER: Final = 65534  # nobody: the mailboxes belong to no account
"""User and group number that mail is delivered as."""

_UNFINISHED_PROTOCOLS = {TlsRange.ANY: ">=TLSv1.2", TlsRange.ONLY_1_2: "TLSv1.2", TlsRange.ONLY_1_3: "TLSv1.3"}


def nsd(plan: Plan, zones: Mapping[str, PurePath], directory: PurePath) -> str:
    """nsd.conf: the authority for every zone."""
    return f"""\
server:
    ip-address: {plan.authority}@53
    do-ip6: no
    server-count: 1
    username: ""
    chroot: ""
    zonesdir: "{directory}"
    database: ""
    pidfile: "{directory}/nsd.pid"
    xfrdfile: ""
    zonelistfile: ""
    cookie-secret-file: ""
    rrl-ratelimit: 0
    refuse-any: no
    verbosity: 1
remote-control:
    control-enable: no
""" + "".join(f'zone:\n    name: "{name}"\n    zonefile: "{file}"\n' for name, file in zones.items())


def root_hints(plan: Plan) -> str:
    """Where the root of the lab's DNS is."""
    return f". 3600 IN NS ns.lab.test.\nns.lab.test. 3600 IN A {plan.authority}\n"


def unbound(plan: Plan, directory: PurePath, anchor: PurePath) -> str:
    """unbound.conf: a validator that knows the lab's root key and nothing else."""
    return f"""\
server:
    interface: {plan.resolver}@53
    access-control: 0.0.0.0/0 allow
    do-ip6: no
    do-not-query-localhost: no
    num-threads: 1
    username: ""
    chroot: ""
    directory: "{directory}"
    pidfile: ""
    use-syslog: no
    logfile: ""
    verbosity: 1
    val-log-level: 2
    log-servfail: yes
    ede: yes
    root-hints: "{directory}/root.hints"
    module-config: "validator iterator"
    trust-anchor-file: "{anchor}"
    trust-anchor-signaling: no
    local-zone: "test." nodefault
    cache-max-ttl: 5
    val-bogus-ttl: 5
    cache-max-negative-ttl: 5
    infra-host-ttl: 5
    hide-identity: yes
remote-control:
    control-enable: no
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """What a mail server needs to know of where it is.

    :param directory: its own: configuration, queue, data.
    :param mailboxes: a maildir for each host goes below.
    :param credentials: PEM file of each host: key, then chain.
    """

    directory: PurePath
    mailboxes: PurePath
    credentials: Mapping[str, PurePath]


_POSTFIX_SERVICES: Final = """\
cleanup   unix  n - n - 0 cleanup
qmgr      unix  n - n 300 1 qmgr
rewrite   unix  - - n - - trivial-rewrite
bounce    unix  - - n - 0 bounce
defer     unix  - - n - 0 bounce
trace     unix  - - n - 0 bounce
verify    unix  - - n - 1 verify
flush     unix  n - n 1000? 0 flush
proxymap  unix  - - n - - proxymap
smtp      unix  - - n - - smtp
relay     unix  - - n - - smtp
showq     unix  n - n - - showq
error     unix  - - n - - error
retry     unix  - - n - - error
discard   unix  - - n - - discard
virtual   unix  - n n - - virtual
anvil     unix  - - n - 1 anvil
scache    unix  - - n - 1 scache
tlsmgr    unix  - - n 1000? 1 tlsmgr
postlog   unix-dgram n - n - 1 postlogd
"""


def postfix_main(place: Place, settings: Mapping[str, str]) -> str:
    """main.cf.

    :param settings: parameters of this instance beside those that every one has.
    """
    directory = place.directory
    main = {
        "compatibility_level": "3.6",
        "config_directory": str(directory / "conf"),
        "queue_directory": str(directory / "queue"),
        "data_directory": str(directory / "data"),
        "maillog_file": "/dev/stdout",
        "mydestination": "",
        "alias_maps": "",
        "alias_database": "",
        "inet_protocols": "ipv4",
        "message_size_limit": "52428800",
        "mailbox_size_limit": "0",
        "virtual_mailbox_limit": "0",
        "smtpd_peername_lookup": "no",
        "import_environment": "MAIL_CONFIG MAIL_LOGTAG TZ LANG=C LD_LIBRARY_PATH POSTLOG_SERVICE POSTLOG_HOSTNAME",
        **settings,
    }
    return "".join(f"{name} = {value}\n" for name, value in main.items())


def postfix_hosts_main(place: Place, domains: Sequence[str]) -> str:
    """main.cf of the Postfix that plays mail hosts: whoever a message is for, it ends in the maildir of its host."""
    return postfix_main(
        place,
        settings={
            "myhostname": "postfix.lab.test",
            "mynetworks": "127.255.255.255/32",
            "smtpd_relay_restrictions": "permit_mynetworks, reject_unauth_destination",
            "smtpd_tls_loglevel": "1",
            "smtpd_tls_received_header": "yes",
            "virtual_mailbox_domains": " ".join(domains),
            "virtual_mailbox_maps": f"regexp:{place.directory / 'conf/mailboxes'}",
            "virtual_mailbox_base": str(place.mailboxes),
            "virtual_uid_maps": f"static:{MAILBOX_OWNER}",
            "virtual_gid_maps": f"static:{MAILBOX_OWNER}",
        },
    )


def postfix_mailboxes(hosts: Sequence[Host]) -> str:
    """A regexp table: addresses at a domain to the maildir of its host."""
    return "".join(f"/@{domain_of(host).replace('.', '[.]')}$/ {host.name}/\n" for host in hosts)


def postfix_hosts_master(plan: Plan, place: Place, hosts: Sequence[Host]) -> str:
    """master.cf with an smtpd for each host, at its address and in its TLS posture."""
    lines: list[str] = []
    for host in hosts:
        options = {"syslog_name": host.name, "smtpd_banner": f"{host.name} ESMTP Postfix"}
        if host.script.starttls is StartTls.ABSENT:
            options["smtpd_tls_security_level"] = "none"
        else:
            options["smtpd_tls_security_level"] = "may"
            options["smtpd_tls_chain_files"] = str(place.credentials[host.name])
            options["smtpd_tls_protocols"] = _UNFINISHED_PROTOCOLS[host.script.tls]
        lines.append(f"{plan.addresses[host.name]}:{SMTP_PORT} inet n - n - - smtpd\n")
        lines += [f"  -o {{ {name} = {value} }}\n" for name, value in options.items()]
    return "".join(lines) + _POSTFIX_SERVICES


def postfix_services() -> str:
    """master.cf of a Postfix that only sends, without its listener."""
    return _POSTFIX_SERVICES


def exim(plan: Plan, place: Place, hosts: Sequence[Host], domains: Sequence[str]) -> str:
    """exim.conf: one daemon at several addresses, each with the certificate of its host."""
    chosen = "${lookup {$received_ip_address} lsearch{%s}}" % (place.directory / "certificates")
    boxes = "${lookup {$domain} lsearch{%s}}" % (place.directory / "mailboxes")
    return f"""\
primary_hostname = exim.lab.test
spool_directory = {place.directory}/spool
log_file_path = {place.directory}/log/%slog
pid_file_path =
disable_ipv6
local_interfaces = {" : ".join(plan.addresses[host.name] for host in hosts)}
daemon_smtp_ports = {SMTP_PORT}
host_lookup =
rfc1413_hosts =
tls_advertise_hosts = *
tls_certificate = {chosen}
tls_privatekey = {chosen}
domainlist local_domains = {" : ".join(domains)}
acl_smtp_rcpt = check_rcpt
never_users =
deliver_drop_privilege
message_size_limit = 50M
smtputf8_advertise_hosts = *
begin acl
check_rcpt:
  accept domains = +local_domains
  deny message = relay not permitted
begin routers
local:
  driver = accept
  domains = +local_domains
  transport = mailbox
begin transports
mailbox:
  driver = appendfile
  maildir_format
  directory = {place.mailboxes}/{boxes}
  create_directory
begin retry
* * F,1h,1m
begin rewrite
"""


def exim_certificates(plan: Plan, place: Place, hosts: Sequence[Host]) -> str:
    """What exim.conf looks certificates up in, by address."""
    return "".join(f"{plan.addresses[host.name]}: {place.credentials[host.name]}\n" for host in hosts)


def exim_mailboxes(hosts: Sequence[Host]) -> str:
    """What exim.conf looks mailboxes up in, by domain."""
    return "".join(f"{domain_of(host)}: {host.name}\n" for host in hosts)


def opensmtpd(plan: Plan, place: Place, hosts: Sequence[Host]) -> str:
    """smtpd.conf: hosts without STARTTLS."""
    lines = ["smtp max-message-size 50M", 'table everybody { "@" = "nobody" }']
    for host in hosts:
        lines.append(f"listen on {plan.addresses[host.name]} port {SMTP_PORT} hostname {host.name}")
        lines.append(f'action "{host.name}" maildir "{place.mailboxes / host.name}" virtual <everybody>')
        lines.append(f'match from any for domain "{domain_of(host)}" action "{host.name}"')
    return "\n".join(lines) + "\n"


def domain_of(host: Host) -> str:
    """The mail domain of a host that is called after it."""
    return host.name.partition(".")[2]


def relay(plan: Plan) -> str:
    """relay.toml of the relay under test; its files are beside it."""
    return f"""\
# The relay in the lab: its defaults, but for where the lab is and how long to wait for it.
[relay]
myhostname = "relay.lab.test"
state_dir = "state"

[smtpd]
listen = ["{plan.relay}:2525"]
mynetworks = ["{plan.network}0/24", "127.0.0.0/8"]

[smtp]
tls_CAfile = "ca.pem"
tls_policy_maps = ["texthash:tls_policy"]
connect_timeout = "10s"
helo_timeout = "4s"
starttls_timeout = "6s"

[dns]
mode = "validate"
nameservers = ["{plan.resolver}:53"]
trust_anchor_file = "root.ds"
timeout = "4s"

[queue]
minimal_backoff_time = "4s"
maximal_backoff_time = "8s"

[http]
listen = "127.0.0.1:8025"
"""
