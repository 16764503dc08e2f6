# SPDX-License-Identifier: BSD-2-Clause
"""The witness behind a bad wire (`hv nic impair`): what Linux in the guest counts itself agrees
with what the wire says that it did, and its TCP lives with it. Needs root for the tap."""

import re
import time

import pytest

from hvlib import iperf, wire
from icmp import ping
from linux import Linux, spec_fields


MAC = "00:15:5d:44:4c:7c"


@pytest.fixture(scope="module")
def witness(module_boot, tapnet):
    guest = Linux(module_boot.start(**spec_fields(vcpus=1, nics=[f"tap:tap0,mac={MAC}"],
                                                  netns=tapnet.name)))
    # what is lost is what is counted here, not the search for a neighbour
    tapnet.run("ip", "neigh", "replace", guest.address, "lladdr", MAC, "dev", "tap0", "nud", "permanent")
    return guest


@pytest.fixture
def guest(witness):
    """The guest with a perfect wire, before and after."""
    wire.off(witness.vm)
    yield witness
    wire.off(witness.vm)


def counters(guest, side):
    return guest.vm.stats()["devices"]["nic0"]["wire"][side]


def test_delay_both_ways(guest, tapnet):
    """Seen from either end."""
    wire.impair(guest.vm, delay=25)
    output = guest.check(f"ping -c 5 {tapnet.here()}")
    assert 50 <= float(re.search(r"min/avg/max = ([\d.]+)/", output)[1]) < 90, output
    times = ping(tapnet, guest.address, 10).times
    assert len(times) == 10 and 50 <= min(times) < 90, times


@pytest.mark.parametrize("side", wire.SIDES)
def test_loss(guest, tapnet, side):
    """The guest has received as many echo requests as the wire did not lose."""
    def requests():
        names, values = guest.check("grep ^Icmp: /proc/net/snmp").splitlines()
        return int(dict(zip(names.split(), values.split()))["InEchos"])
    seen = requests()
    wire.impair(guest.vm, sides=[side], loss=25, seed=3)
    before = counters(guest, side.replace("-", "_"))["lost"]

    def lost_now():
        return counters(guest, side.replace("-", "_"))["lost"] - before
    answered = ping(tapnet, guest.address, 200, interval=0.005, done=lambda answers: (
        answers.received + lost_now() >= 200)).received
    lost = lost_now()
    wire.off(guest.vm)
    assert 25 <= lost <= 75
    assert 0 <= lost - (200 - answered) <= 5  # ARP is lost, too
    assert requests() - seen == (answered if side == "to-guest" else 200)


@pytest.mark.parametrize("direction", [(), ("-R",)], ids=["to-guest", "from-guest"])
@pytest.mark.parametrize("settings", [{"loss": 0.1}, {"loss": 1}, {"reorder": 1}, {"duplicate": 1}],
                         ids=lambda s: "-".join(map(str, next(iter(s.items())))))
def test_iperf(guest, tapnet, settings, direction):
    """10 ms of round trip; both ends are Linux's TCP."""
    side = "from_guest" if direction else "to_guest"
    what = {"loss": "lost", "reorder": "reordered", "duplicate": "duplicated"}[next(iter(settings))]
    before = counters(guest, side)
    wire.impair(guest.vm, delay=5, seed=1, **settings)
    report = iperf.client(guest.address, "-t", 4, "-C", "cubic", *direction, timeout=60,
                          prefix=tapnet.command(), one_off_server=True)
    wire.off(guest.vm)
    after = counters(guest, side)
    pieces, hit = after["pieces"] - before["pieces"], after[what] - before[what]
    assert report.received_bytes > 500_000
    assert 0 < hit <= 3 * pieces * next(iter(settings.values())) / 100 + 10
    if what == "lost":  # each has to be sent again
        assert report.retransmits >= hit * 0.5
    print(f"{settings} {side}: {report.gbit_s * 1000:.1f} Mbit/s, {hit} of {pieces} {what}")


def test_rate(guest, tapnet):
    """A wire of 50 Mbit/s with little queue; and Linux's driver has complained about nothing."""
    wire.impair(guest.vm, rate=50, queue_kib=256)
    start = time.monotonic()
    report = iperf.client(guest.address, "-t", 4, prefix=tapnet.command(), one_off_server=True)
    # By a clock that stands beside the wire: the two ends' may have started late.
    most = 50e6 / 8 * (time.monotonic() - start)
    assert 0.4 * 4 * 50e6 / 8 < report.received_bytes < most, report.received_bytes
    assert guest.kernel_complaints() == []
