"""Credentials in a story: what they ask of the host, and how a delivery would log in; the walk does not."""

from __future__ import annotations

import pytest

from relay.dns.answer import RRType
from relay.explain.objects import story_object
from relay.explain.story import Login, Satisfied, WouldFail, WouldSend
from relay.explain.text import story_lines
from relay.lab.ca import CertificateKind
from relay.outcome.result import Deferred
from relay.policy.level import Level
from tests.auth_scripts import PASSWORD, USER, shows_credentials
from tests.loopback import LoopbackNetwork
from tests.recording_sink import RecordingSink, server_context
from tests.unit.explain.scene import Scene
from tests.zone import a, found

NAME = "smtp.provider.test"


def smarthost(scene: Scene, auth: str) -> RecordingSink:
    """A smarthost that all mail goes to, with credentials for it."""
    keywords = [f"AUTH {auth}"] if auth else []
    context = server_context(scene.authority.issue(CertificateKind.GOOD, NAME).pem_file)
    sink = scene.stack.push(RecordingSink(LoopbackNetwork().address(1), 0, context=context, keywords=keywords))
    scene.zone[NAME, RRType.A] = found(NAME, a(sink.address))
    scene.relay_hosts = (f"[{NAME}]:{sink.port}",)
    scene.passwords = f"[{NAME}]:{sink.port} {USER}:{PASSWORD}\n"
    scene.level = Level.MAY
    return sink


async def test_the_line_with_credentials_is_named(scene: Scene) -> None:
    smarthost(scene, "PLAIN")
    lines = list(story_lines(await scene.explain()))
    assert any("level     secure" in line for line in lines)
    assert any("because sasl_passwd:1 has credentials for this next-hop" in line for line in lines)
    assert any(f"names     {NAME}" in line for line in lines)
    assert PASSWORD not in "\n".join(lines)


@pytest.mark.parametrize(
    ("auth", "words"),
    [
        ("LOGIN SCRAM-SHA-256", "with SCRAM-SHA-256; rule sasl_passwd:1"),
        ("", "if the host offered AUTH; mail goes without; rule sasl_passwd:1"),
    ],
)
async def test_live_says_how_and_does_not_do_it(scene: Scene, auth: str, words: str) -> None:
    sink = smarthost(scene, auth)
    story = await scene.explain(live=True)
    assert isinstance(story.ending, WouldSend)
    assert isinstance(story.ending.session, Satisfied)
    assert story.ending.session.login == Login(
        user=USER, place="sasl_passwd:1", mechanism=auth.rsplit(maxsplit=1)[-1] if auth else ""
    )
    assert any(f"AUTH      as {USER} {words}" in line for line in story_lines(story))
    assert f"'user': '{USER}'" in str(story_object(story))
    assert PASSWORD not in str(story_object(story)) + repr(story)
    assert not shows_credentials(line for line, _ in sink.heard())


async def test_a_mechanism_that_is_missing_is_a_failure(scene: Scene) -> None:
    smarthost(scene, "GSSAPI")
    ending = (await scene.explain(live=True)).ending
    assert isinstance(ending, WouldFail)
    assert isinstance(ending.outcome.result, Deferred)
    assert (
        "no mechanism available: expected one of SCRAM-SHA-256, PLAIN, LOGIN; found GSSAPI"
        in ending.outcome.result.reason
    )


async def test_a_line_that_withholds_them_is_a_failure_without_a_session(scene: Scene) -> None:
    sink = smarthost(scene, "PLAIN")
    scene.policy = f"{scene.relay_hosts[0]} encrypt\n"
    ending = (await scene.explain(live=True)).ending
    assert isinstance(ending, WouldFail)
    assert isinstance(ending.outcome.result, Deferred)
    assert ending.outcome.result.reason.startswith("SASL credentials withheld")
    assert not sink.heard()


async def test_the_sender_has_credentials_of_their_own(scene: Scene) -> None:
    smarthost(scene, "PLAIN")
    scene.passwords += f"ann@example.org ann:{PASSWORD}\n"
    for sender, user in (("ann@example.org", "ann"), ("bob@example.org", USER), ("", USER)):
        story = await scene.explain(live=True, sender=sender)
        assert isinstance(story.ending, WouldSend)
        assert isinstance(story.ending.session, Satisfied)
        assert isinstance(story.ending.session.login, Login)
        assert story.ending.session.login.user == user
