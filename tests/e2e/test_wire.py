# SPDX-License-Identifier: BSD-2-Clause
"""Dunlin behind a bad wire: delay, loss, reordering, duplication, a rate, each direction for itself
(`hv nic impair`, tools/hvlib/wire.py). Needs root for the tap. The settings are tried with ping,
where the right result is known; iperf3 has to live with them."""

import subprocess
import time

import pytest

from dunlin import address, check_iperf
from hvlib import HvError, iperf, wire
from hvlib.vm import READY
from icmp import check_ping, ping
from support import ROOT, hv, wait_for


MAC = "00:15:5d:44:4c:7b"


@pytest.fixture(scope="module")
def guest(module_boot, tapnet):
    # frames are counted: no neighbour discovery between them
    tapnet.run("sh", "-c", "echo 1 >/proc/sys/net/ipv6/conf/tap0/disable_ipv6")
    vm = module_boot.dunlin(vcpus=1, memory=256, nics=[f"tap:tap0,mac={MAC}"], netns=tapnet.name,
                            allow_reboot=True)
    tapnet.run("ip", "neigh", "replace", address(vm), "lladdr", MAC, "dev", "tap0", "nud", "permanent")
    return vm


@pytest.fixture
def vm(guest):
    """The guest with a perfect wire, before and after."""
    wire.off(guest)
    yield guest
    wire.off(guest)


def counters(vm, side):
    return vm.stats()["devices"]["nic0"]["wire"][side]


def gained(vm, side, before):
    """What the counters of a side have counted since."""
    return {name: value - before[name] for name, value in counters(vm, side).items()}


def impair(vm, *arguments):
    """tools/hv nic impair nic0 ...; returns (exit status, all it printed)."""
    return hv("nic", "impair", "nic0", "--name", vm.name, *arguments)


def test_off_counts_nothing(vm, tapnet):
    before = [counters(vm, side) for side in ("to_guest", "from_guest")]
    check_ping(tapnet, address(vm))
    assert before == [counters(vm, side) for side in ("to_guest", "from_guest")]


def ping_until_quick(vm, tapnet, most):
    """Pings until one has taken less than `most` ms, for that depends on what else the machine does.
    Returns how long each took."""
    times = []
    deadline = time.monotonic() + 30
    while not times or min(times) > most:
        assert time.monotonic() < deadline, f"none within {most} ms: {times}"
        times += ping(tapnet, address(vm), 5).times
    return times


@pytest.mark.parametrize("sides, least", [(["to-guest"], 30), (["from-guest"], 30),
                                          (wire.SIDES, 60)], ids=["to-guest", "from-guest", "both"])
def test_delay(vm, tapnet, sides, least):
    """It is there, once for each direction, and gone when it is switched off."""
    wire.impair(vm, sides=sides, delay=30)
    slow = ping_until_quick(vm, tapnet, least + 15)
    assert min(slow) >= least, slow
    wire.off(vm)
    ping_until_quick(vm, tapnet, 60)


@pytest.mark.parametrize("side", wire.SIDES)
def test_loss(vm, tapnet, side):
    """What ping misses is what the wire has lost."""
    wire.impair(vm, sides=[side], loss=20, seed=7)
    name = side.replace("-", "_")
    before = counters(vm, name)
    received = ping(tapnet, address(vm), 300, interval=0.005, done=lambda answers: (
        answers.received + gained(vm, name, before)["lost"] >= 300)).received
    after = gained(vm, name, before)
    assert 30 <= after["lost"] <= 90
    # ARP and DHCP are frames too, but there are few of them.
    assert 0 <= after["frames"] - 300 <= 10
    assert 0 <= after["lost"] - (300 - received) <= 5


def test_same_seed_same_losses(vm, tapnet):
    """The n-th frame's fate is that of the n-th frame of the run before."""
    def lost():
        wire.impair(vm, sides=["to-guest"], loss=30, seed=42)
        before = counters(vm, "to_guest")
        answers = ping(tapnet, address(vm), 60, done=lambda answers: (
            answers.received + gained(vm, "to_guest", before)["lost"] >= 60))
        return set(range(1, 61)) - set(answers.sequence)
    runs = []
    for _ in range(3):  # an ARP packet of the guest's between two pings shifts all that follow
        wire.off(vm)
        check_ping(tapnet, address(vm), 1)
        runs.append(lost())
    assert 5 < len(runs[0]) < 40
    assert runs[0] in runs[1:] or runs[1] == runs[2], runs


@pytest.mark.parametrize("side", wire.SIDES)
def test_duplicate(vm, tapnet, side):
    name = side.replace("-", "_")
    wire.impair(vm, sides=[side], duplicate=50, seed=7)
    before = counters(vm, name)
    answers = ping(tapnet, address(vm), 100, done=lambda answers: (
        answers.received == 100 and answers.twice >= gained(vm, name, before)["duplicated"] - 5))
    duplicated = gained(vm, name, before)["duplicated"]
    assert answers.received == 100
    assert 25 <= duplicated <= 75
    assert 0 <= duplicated - answers.twice <= 5


def test_reorder(vm, tapnet):
    """Overtaken by the next three, or late by 10 ms if they do not come."""
    wire.impair(vm, sides=["to-guest"], reorder=10, seed=7)
    before = counters(vm, "to_guest")
    sequence = ping(tapnet, address(vm), 300, burst=30).sequence
    after = gained(vm, "to_guest", before)
    assert sorted(sequence) == list(range(1, 301))
    assert sequence != sorted(sequence)
    assert 10 <= after["reordered"] <= 60
    wire.impair(vm, sides=["to-guest"], reorder=100)
    alone = ping(tapnet, address(vm), 5, interval=0.2)
    assert alone.received == 5 and min(alone.times) >= 10, alone


@pytest.mark.parametrize("options, side", [((), "to-guest"), (("-R",), "from-guest")],
                         ids=wire.SIDES)
def test_rate(vm, tapnet, options, side):
    """A wire of 20 Mbit/s takes 20 Mbit/s, with little queue: of the others it drops some."""
    wire.impair(vm, sides=[side], rate=20, queue_kib=64)
    name, start = side.replace("-", "_"), time.monotonic()
    report = iperf.client(address(vm), "-t", 4, *options, prefix=tapnet.command())
    wait_for(lambda: counters(vm, name)["queued_bytes"] == 0, 20, "an empty wire")
    # By a clock that stands beside the wire: the two ends' may have started late.
    most = 20e6 / 8 * (time.monotonic() - start)
    assert 0.4 * 4 * 20e6 / 8 < report.received_bytes < most, report.received_bytes
    assert 0 < counters(vm, name)["queued_bytes_peak"]


def test_queue_is_bounded(vm, tapnet):
    """A long wire holds no more than it may; the rest is dropped and counted, and all of what it
    held arrives."""
    wire.impair(vm, sides=["to-guest"], delay=4000, queue_kib=64)
    before = counters(vm, "to_guest")
    received = ping(tapnet, address(vm), 150, burst=150, size=1400, done=lambda answers: (
        answers.received + gained(vm, "to_guest", before)["overflowed"] >= 150)).received
    after = gained(vm, "to_guest", before)
    assert 35 <= received <= 45  # of 1,442 bytes each
    assert 150 - received <= after["overflowed"] <= 150 - received + 5
    assert counters(vm, "to_guest")["queued_frames"] == 0


def test_off_lets_everything_arrive(vm, tapnet):
    """Frames on a wire of 10 s arrive when it is made short."""
    wire.impair(vm, sides=["to-guest"], delay=10_000)
    before = counters(vm, "to_guest")
    with tapnet.popen("ping", "-n", "-c", "1", "-W", "20", address(vm),
                      stdout=subprocess.PIPE, text=True) as process:
        wait_for(lambda: counters(vm, "to_guest")["queued_frames"], 20, "a frame on the wire")
        wire.off(vm)
        output = process.communicate(timeout=30)[0]
    assert "1 received" in output
    assert gained(vm, "to_guest", before)["lost"] == 0


@pytest.mark.parametrize("direction", [(), ("-R",)], ids=["to-guest", "from-guest"])
@pytest.mark.parametrize("settings, delay, least", [
    ({"loss": 0.1}, 5, (25, 200)), ({"loss": 1}, 5, (8, 80)), ({"reorder": 1}, 5, (30, 300)),
    ({"loss": 1}, 25, (2, 40))], ids=["loss-0.1", "loss-1", "reorder-1", "loss-1-50-ms"])
def test_iperf(vm, tapnet, settings, delay, least, direction):
    """10 or 50 ms of round trip, the impairment in the direction of the data and in that of the ACKs.
    least: Mbit/s to the guest, with any sender there (Cubic gets least), and from the guest."""
    before = {side: counters(vm, side) for side in ("to_guest", "from_guest")}
    wire.impair(vm, delay=delay, seed=1, **settings)
    report = iperf.client(address(vm), "-t", 4, *direction, prefix=tapnet.command(), timeout=60)
    wire.off(vm)
    data = gained(vm, "from_guest" if direction else "to_guest",
                  before["from_guest" if direction else "to_guest"])
    print(f"{settings} {direction or 'to guest'}: {report.gbit_s * 1000:.1f} Mbit/s, {data}")
    assert report.gbit_s * 1000 > least[bool(direction)]
    hit = data["reordered" if "reorder" in settings else "lost"]
    assert hit > 0
    if direction:  # loss alone makes Dunlin no slower, and it sends again what was lost, little else
        assert report.retransmits <= 2 * hit + data["pieces"] / 100
    share = next(iter(settings.values())) / 100
    assert hit <= 3 * share * data["pieces"] + 10
    check_iperf(vm, seconds=1, host=address(vm), port=5201, prefix=tapnet.command())


@pytest.mark.parametrize("name, value", [
    ("to-guest-loss-ppm", 1_000_001), ("from-guest-loss-ppm", -1), ("to-guest-loss-ppm", "much"),
    ("to-guest-delay-us", 10_000_001), ("from-guest-delay-us", 1.5),
    ("from-guest-rate-kbit", 400_000_001), ("to-guest-queue-kib", 63),
    ("to-guest-queue-kib", 1_048_577), ("from-guest-reorder-ppm", 1_000_001),
    ("from-guest-duplicate-ppm", 1_000_001), ("wire-seed", -1)])
def test_refused(vm, name, value):
    """By the host, whoever asks; and it leaves the old value."""
    path = "/machine/peripheral/nic0"
    old = vm.qmp("qom-get", path=path, property=name)
    with pytest.raises(HvError, match=name):
        vm.qmp("qom-set", path=path, property=name, value=value)
    assert vm.qmp("qom-get", path=path, property=name) == old


@pytest.mark.parametrize("arguments, status, reason", [
    (("--loss", "101"), 2, "0 to 100 %"), (("--loss", "much"), 2, "not a number"),
    (("--loss", "nan"), 2, "0 to 100 %"), (("--delay", "-1"), 2, "0 to 10000 ms"),
    (("--loss", "0.00001"), 2, "less than the smallest step"),
    (("--queue", "1"), 1, "64 to 1048576"),
    (("--seed", "-5"), 1, "wire-seed"), (("--off", "--rate", "1"), 1, "give it alone")])
def test_tool_refuses(vm, arguments, status, reason):
    result = impair(vm, *arguments)
    assert result[0] == status and reason in result[1]
    assert impair(vm)[1] == "nic0 to-guest: off\nnic0 from-guest: off\n"


def test_tool(vm):
    assert impair(vm, "--to-guest", "--delay", 12.5, "--loss", 0.1) == (
        0, "nic0 to-guest: delay 12.5 ms, loss 0.1 %, queue 65536 KiB\nnic0 from-guest: off\n")
    assert impair(vm, "--rate", 100, "--queue", 256) == (
        0, "nic0 to-guest: delay 12.5 ms, rate 100 Mbit/s, loss 0.1 %, queue 256 KiB\n"
        "nic0 from-guest: rate 100 Mbit/s, queue 256 KiB\n")
    assert impair(vm, "--off", "--from-guest")[1].endswith("nic0 from-guest: off\n")
    assert impair(vm, "--off") == (0, "nic0 to-guest: off\nnic0 from-guest: off\n")
    done = subprocess.run([ROOT / "tools/hv", "nic", "impair", "nic7", "--name", vm.name],
                          text=True, check=False, capture_output=True)
    assert done.returncode == 1 and "no NIC named nic7; it has: nic0" in done.stderr


def test_frames_wait_for_a_guest_that_is_away(vm, tapnet):
    """It restarts while frames are on the wire; they are there when it is back."""
    wire.impair(vm, sides=["to-guest"], delay=10_000)
    with tapnet.popen("ping", "-n", "-q", "-c", "30", "-i", "0.02", address(vm),
                      stdout=subprocess.DEVNULL) as process:
        wait_for(lambda: counters(vm, "to_guest")["queued_frames"] >= 10, 20, "frames on the wire")
        since = vm.mark()
        vm.qmp("system_reset")
        process.kill()
    wire.off(vm)  # all of them are due
    waiting = counters(vm, "to_guest")["queued_frames"]
    assert waiting >= 10
    vm.wait_console(READY, 120, since)
    wait_for(lambda: counters(vm, "to_guest")["queued_frames"] == 0, 20, "an empty wire")
    check_ping(tapnet, address(vm))


@pytest.mark.parametrize("what", ["device_del", "netdev_del"])
def test_gone_with_frames_on_the_wire(boot, what):
    """The NIC, or what is behind it, goes while frames are on their way."""
    vm = boot.dunlin(nic_opts=["wire-seed=5"])
    wire.impair(vm, delay=300)
    with subprocess.Popen(["iperf3", "-c", "127.0.0.1", "-p", str(vm.port), "-t", "3"],
                          stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as client:
        for side in ("to_guest", "from_guest"):
            wait_for(lambda s=side: counters(vm, s)["queued_frames"], 20, f"frames {side}")
        vm.qmp(what, id="nic0" if what == "device_del" else "net0")
        if what == "device_del":
            wait_for(lambda: "nic0" not in vm.stats()["devices"], 20, "the NIC to go")
        else:
            wait_for(lambda: counters(vm, "to_guest")["queued_frames"] == 0, 20, "an empty wire")
        client.terminate()
    assert vm.running()
    vm.command("stats", r"^dunlin: stats: ")


def test_device_option(boot):
    """The same from the start, on the command line of the host."""
    vm = boot.dunlin(nic_opts=["to-guest-delay-us=5000", "from-guest-loss-ppm=10"])
    assert impair(vm)[1] == ("nic0 to-guest: delay 5 ms, queue 65536 KiB\n"
                         "nic0 from-guest: loss 0.001 %, queue 65536 KiB\n")
    with pytest.raises(HvError, match="to-guest-loss-ppm has to be 0 to 1000000"):
        boot.start(efi=ROOT / "build/BOOTX64.EFI", nic_opts=["to-guest-loss-ppm=2000000"])
