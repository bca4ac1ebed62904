"""Good destinations do not suffer from bad ones beside them, counted: tests/bench/neighbours.py measures the same."""

from __future__ import annotations

from pathlib import Path

from tests.loopback import free_port
from tests.neighbourhood import BUSY, HANGS, SILENT, STAGES, Neighbourhood, hand_in
from tests.relay_process import RelayProcess, Settings

GOOD = 50
INITIAL = len(STAGES)

SETTINGS: Settings = {
    # What hangs hangs for longer than the test: only then does it hold its slots to the end.
    "smtp": {
        "transport_maps": ["texthash:transport"],
        "tls_security_level": "may",
        "initial_destination_concurrency": INITIAL,
        "connect_timeout": "10m",
    },
    "dns": {"nameservers": [f"127.0.0.1:{free_port()}"], "timeout": "1s"},
    "relay": {"drain_time": "0.1s"},
    "queue": {"minimal_backoff_time": "1s", "maximal_backoff_time": "1s"},
}


def test_all_good_mail_goes_out_while_one_hangs_and_one_answers_450(tmp_path: Path) -> None:
    with (
        Neighbourhood(GOOD) as hosts,
        RelayProcess(tmp_path, SETTINGS, {"transport": hosts.transport_map()}) as relay,
    ):
        # The bad ones come first, with much more mail than anybody else.
        hand_in(relay.address, relay.port, [HANGS, BUSY, SILENT] * 20)
        hosts.wait_until(lambda: hosts.hung.total() == INITIAL and hosts.refused >= 20, "the bad ones to be tried")
        assert set(hosts.hung) == set(STAGES), "it hangs at every stage at the same time"
        hand_in(relay.address, relay.port, hosts.good * 2)
        hosts.wait_until(lambda: hosts.delivered_to_good == 2 * GOOD, "all good mail")
        assert {hosts.delivered[name] for name in hosts.good} == {2}
        assert hosts.most_at_once[HANGS] == hosts.hung.total() == INITIAL, "what hangs holds its first window, no more"
        assert hosts.delivered[HANGS] == hosts.delivered[BUSY] == 0
        # Nothing is lost of what could not be delivered.
        hosts.wait_until(lambda: hosts.refused >= 40, "the busy one to be tried again")
