"""``dane-relay``: the group of commands. Each command's module is imported only when the command is used.

Exit status of every command: 0 fine, 1 the thing asked about is not fine, 2 usage, 75 temporary (EX_TEMPFAIL).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from importlib import import_module

import click

from relay import __version__


@dataclass(frozen=True, slots=True)
class Entry:
    """Where a command lives, and what it does in one line."""

    module: str
    name: str
    meaning: str


COMMANDS: Mapping[str, Entry] = {
    "serve": Entry("serve", "command", "Run the relay."),
    "check": Entry("check", "command", "Validate a configuration and all it names."),
    "explain": Entry("explain", "command", "Say what would become of mail to a domain, and why."),
    "policy": Entry("policy", "command", "Look through policy maps and compare them."),
    "import-postfix": Entry("import_postfix", "command", "Write relay.toml from a Postfix configuration."),
    "pin": Entry("pin", "command", "Fingerprints for the policy map: capture, verify, rotate."),
    "finger": Entry("finger", "command", "Open a session with every host of a domain, and say who meets the policy."),
    "lab": Entry("lab", "command", "Play good and bad destinations in one process."),
    "queue": Entry("queue", "command", "Look at the queue and act on it."),
    "user": Entry("user", "command", "Say who may log in at the front door."),
    "reload": Entry("control", "reload", "Let the running relay read its policy maps and routes again."),
    "stop": Entry("control", "stop", "End the running relay."),
}


class LazyCommands(click.Group):
    """A group whose commands live in modules of their own; ``--help`` imports none of them."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """The names in the order in which a reader meets them."""
        del ctx
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import the command, or None where there is none of that name."""
        del ctx
        entry = COMMANDS.get(cmd_name)
        if entry is None:
            return None
        command: click.Command = getattr(import_module(f"relay.cli.{entry.module}"), entry.name)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """List the commands by what is known of them here."""
        del ctx
        with formatter.section("Commands"):
            formatter.write_dl([(name, entry.meaning) for name, entry in COMMANDS.items()])


@click.group(cls=LazyCommands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, "-V", "--version", prog_name="dane-relay")
def main() -> None:
    """An SMTP relay that enforces DANE and per-destination TLS policy.

    Exit status: 0 fine, 1 the thing asked about is not fine, 2 usage, 75 temporary.
    """
