"""The program that asks everybody everything, inside the network of tests/interop/validators.py.

``python -m tests.interop.dns_truth DIRECTORY VALIDATOR…`` builds the signed tree, starts the servers, asks our resolvers and
theirs, and prints one JSON object: for each asker how many answers of each kind it had, and those that are not the truth.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import asdict, dataclass
from ipaddress import ip_address
from pathlib import Path
from typing import Final, assert_never

import dns.asyncquery
import dns.exception
import dns.flags
import dns.message
import dns.rcode
import dns.rdatatype

from relay.dns.ad import AdResolver, NameServer
from relay.dns.anchor import read_anchors
from relay.dns.answer import Answer, Bogus, Found, LookupFailed, NoData, NxDomain
from relay.dns.libunbound import NoLibunbound
from relay.dns.resolver import Resolver
from relay.dns.unbound import UnboundResolver, Upstream
from relay.mail.names import Domain
from tests.interop.dns_truth_gather import gather
from tests.interop.signed_tree import Kind, Outcome, Question, Tree
from tests.interop.signed_tree_files import Signers
from tests.interop.signed_tree_zones import grow
from tests.interop.validators import ADDRESSES, authorities, root_hints, silent_server, validators

TIMEOUT: Final = 8.0
"""Seconds for one try of one question; the validators give up after ten or so."""
_AT_ONCE: Final = 24
_WAITING_AT_ONCE: Final = 200

Ask = Callable[[Question], Awaitable[tuple[Outcome, str]]]
"""The outcome, and a word on why."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Different:
    """An answer that is not what the tree says."""

    name: str
    rrtype: str
    truth: str
    got: str
    why: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """What one asker was told.

    :param left_out: why it was not asked; then nothing else is there.
    :param outcomes: how many answers there were, by kind and status.
    """

    asked: int = 0
    outcomes: Mapping[str, int] | None = None
    different: Sequence[Different] = ()
    seconds: float = 0.0
    left_out: str = ""


def ours(resolver: Resolver) -> Ask:
    """Ask one of the relay's resolvers."""

    async def ask(question: Question) -> tuple[Outcome, str]:
        return _outcome(await resolver.query(Domain(question.name), question.rrtype))

    return ask


def _outcome(answer: Answer) -> tuple[Outcome, str]:
    match answer:
        case Found(canonical=canonical, rdata=rdata, secure=secure):
            digits = tuple(sorted(octets.hex() for octets in rdata))
            return Outcome(kind=Kind.RECORDS, secure=secure, canonical=canonical.name, rdata=digits), ""
        case NoData(canonical=canonical, secure=secure):
            return Outcome(kind=Kind.NODATA, secure=secure, canonical=canonical.name), ""
        case NxDomain(canonical=canonical, secure=secure):
            return Outcome(kind=Kind.NXDOMAIN, secure=secure, canonical=canonical.name), ""
        case Bogus(why):
            return Outcome(kind=Kind.BOGUS), why
        case LookupFailed(fault, why):
            return Outcome(kind=Kind.FAILURE), f"{fault.value}: {why}"
        case _:
            assert_never(answer)


def theirs(server: str) -> Ask:
    """Ask a validator as ``dig +adflag`` does, and again with ``+cdflag`` where it fails: what then comes was bogus."""

    async def exchange(question: Question, flags: int) -> dns.message.QueryMessage:
        query = dns.message.make_query(
            question.name + ".",
            dns.rdatatype.RdataType.make(int(question.rrtype)),
            flags=flags,
            use_edns=0,
            payload=1232,
        )
        response, _ = await dns.asyncquery.udp_with_fallback(
            query, server, timeout=TIMEOUT, ignore_errors=True, ignore_unexpected=True
        )  # what comes late is of a query that had the port before
        assert isinstance(response, dns.message.QueryMessage)
        return response

    async def ask(question: Question) -> tuple[Outcome, str]:
        try:
            response = await exchange(question, dns.flags.RD | dns.flags.AD)
            if response.rcode() == dns.rcode.SERVFAIL:
                unchecked = await exchange(question, dns.flags.RD | dns.flags.CD)
                failed = unchecked.rcode() == dns.rcode.SERVFAIL
                return Outcome(kind=Kind.FAILURE if failed else Kind.BOGUS), "SERVFAIL"
            if response.rcode() not in (dns.rcode.NOERROR, dns.rcode.NXDOMAIN):
                return Outcome(kind=Kind.FAILURE), dns.rcode.to_text(response.rcode())
            chain = response.resolve_chaining()
        except (dns.exception.DNSException, OSError) as error:
            return Outcome(kind=Kind.FAILURE), f"{type(error).__name__}: {error}"
        secure = bool(response.flags & dns.flags.AD)
        canonical = chain.canonical_name.to_text(omit_final_dot=True).lower()
        if chain.answer is not None:
            octets = (record.to_wire() or b"" for record in chain.answer)
            rdata = tuple(sorted(one.hex() for one in octets))
            return Outcome(kind=Kind.RECORDS, secure=secure, canonical=canonical, rdata=rdata), ""
        absent = response.rcode() == dns.rcode.NXDOMAIN
        return Outcome(kind=Kind.NXDOMAIN if absent else Kind.NODATA, secure=secure, canonical=canonical), ""

    return ask


async def everything(tree: Tree, questions: Sequence[Question], ask: Ask, silent: Collection[Kind]) -> Report:
    """Ask all questions, some at once, and compare what comes with the truth.

    :param silent: what this asker need not be told within the time: for other things, it gets a second try.
    """
    began = time.monotonic()
    # Who asks for what is broken waits most of the time, and shall not hold up the others.
    places, patience = asyncio.Semaphore(_AT_ONCE), asyncio.Semaphore(_WAITING_AT_ONCE)

    async def one(question: Question) -> tuple[Outcome, str]:
        async with patience if tree.truth(question).kind in (Kind.BOGUS, Kind.FAILURE) else places:
            got, why = await ask(question)
            late = got.kind is Kind.FAILURE and why.lower().startswith("timeout")
            return await ask(question) if late and tree.truth(question).kind not in silent else (got, why)

    answers = await asyncio.gather(*map(one, questions))
    different = [
        Different(name=question.name, rrtype=question.rrtype.name, truth=str(truth), got=str(got), why=why)
        for question, (got, why) in zip(questions, answers, strict=True)
        if got != (truth := tree.truth(question))
    ]
    outcomes = Counter(status(got) for got, _ in answers)
    return Report(
        asked=len(answers), outcomes=dict(outcomes), different=different, seconds=round(time.monotonic() - began, 1)
    )


def status(outcome: Outcome) -> str:
    """The outcome without its particulars."""
    return str(outcome).partition(" at ")[0]


async def ask_all(tree: Tree, questions: Sequence[Question], names: Sequence[str], anchor: Path) -> dict[str, object]:
    """Our resolvers while the validators know nothing, then everybody again."""
    reports: dict[str, Report] = {}
    gathered: dict[str, object] = {}

    async def asked(label: str, ask: Ask) -> None:
        # named waits for itself until it gives up where CNAME records or NSEC3 zones have no true signature.
        silent = (Kind.BOGUS, Kind.FAILURE) if "named" in label else (Kind.FAILURE,)
        reports[label] = await everything(tree, questions, ask, silent)

    def believing(name: str, *, trusted: bool = True) -> AdResolver:
        return AdResolver([NameServer(ip_address(ADDRESSES[name]), trusted=trusted)], timeout=TIMEOUT)

    async with AsyncExitStack() as closing:
        validating: dict[str, Resolver] = {}
        upstreams = {"full recursion": Upstream(root_hints=str(root_hints(anchor.parent)))}
        for name in names:
            upstreams[f"through {name}"] = Upstream(forwarders=((ip_address(ADDRESSES[name]), 53),))
        for how, upstream in upstreams.items():
            label = f"validate, {how}"
            try:
                resolver = await UnboundResolver.open(upstream, read_anchors(anchor), timeout=TIMEOUT)
            except NoLibunbound as error:
                reports[label] = Report(left_out=str(error))
                continue
            closing.push_async_callback(resolver.close)
            validating[label] = resolver
        # First while nobody knows anything, then from what the validators have kept.
        await asyncio.gather(
            *(asked(f"trust-ad, {name}", ours(believing(name))) for name in names),
            *(asked(label, ours(resolver)) for label, resolver in validating.items() if "recursion" in label),
        )
        await asyncio.gather(
            *(asked(f"{name} itself", theirs(ADDRESSES[name])) for name in names),
            asked(f"trust-ad, {names[0]} once more", ours(believing(names[0]))),
            *(asked(label, ours(resolver)) for label, resolver in validating.items() if "through" in label),
            asked("trust-ad without trust", ours(believing(names[0], trusted=False))),
        )
        trusting: dict[str, Resolver] = {f"trust-ad, {name}": believing(name) for name in names}
        for label, one in {**trusting, **validating}.items():
            gathered[label] = await gather(one)
    return {"reports": {label: asdict(report) for label, report in reports.items()}, "gathered": gathered}


async def main(directory: Path, names: Sequence[str]) -> None:
    """Build, start, ask, print."""
    tree, questions = grow()
    files, anchor = await asyncio.to_thread(Signers(tree, directory).write)
    transport, server = await silent_server()
    with authorities(tree, files, directory), validators(names, anchor, directory):
        json.dump(await ask_all(tree, questions, names, anchor), sys.stdout)
    transport.close()
    server.close()


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1]), sys.argv[2:]))
