# SPDX-License-Identifier: BSD-2-Clause
"""The integration services, each by name and in each version; what the host does with a whole VM: ends
it, pauses it, moves it."""

import contextlib
import datetime
import re
import socket
import subprocess
import threading
import time

import pytest

from dunlin import address, check_iperf, stats
from hvlib import HvError, ic, iperf, nic
from hvlib.tapnet import TapNet
from support import ROOT, wait_for

FULL = 64 << 10  # bytes that a guest takes of a pool at least


@pytest.fixture(scope="module")
def tapnet():
    """tap0 for the VM that most tests share, tap1 for those that end. A lease is over sooner than the
    pause of test_pause_of_minutes."""
    with TapNet("ic", taps=2, lease="5m") as net:
        yield net


@pytest.fixture(scope="module")
def vm(module_boot, tapnet, tmp_path_factory):
    config = tmp_path_factory.mktemp("ic") / "dunlin.conf"
    config.write_text("[services]\necho = on\n")
    booted = module_boot.dunlin(vcpus=2, config=config, nics=["tap:tap0"], netns=tapnet.name)
    for service in ic.SERVICES:  # they come after the NICs
        ic.wait_ready(booted, service, 10)
    booted.wait_console("address fe80::", 20)
    yield booted
    # A NIC that failed and was tried again a moment later would go unseen.
    assert not re.search(r"(warn|error): (vmbus|nic\d|netvsc)", booted.console())


def replace(vm, service, version=0):
    """Takes the service's device back and plugs in one that offers nothing above a version."""
    vm.qmp("device_del", id=f"ic-{service}")
    wait_for(lambda: service not in vm.stats()["services"], 10, f"the end of {service}")
    vm.qmp("device_add", driver=f"hv-ic-{service}", id=f"ic-{service}", **{"max-version": version})


def utc(vm):
    return datetime.datetime.fromisoformat(stats(vm)["clock"]["utc"].replace("Z", "+00:00"))


def check_clock(vm):
    """The guest's clock is the host's, as far as can be told: a command on the console takes its time,
    and so does a message that does not say when it was sent (timesync before 4.0)."""
    before = ic.host_time(vm)
    now = utc(vm)
    assert before - datetime.timedelta(seconds=1) < now < ic.host_time(vm), before


def check_heartbeat(vm):
    before = ic.stats(vm, "heartbeat")["answers"]
    wait_for(lambda: ic.stats(vm, "heartbeat")["answers"] > before, 10, "a heartbeat")
    now = ic.stats(vm, "heartbeat")
    assert (now["contact"], now["application"]) == ("ok", "healthy")


def check_timesync(vm):
    try:
        ic.set_clock(vm, offset=5)
        ic.send_time(vm)
        wait_for(lambda: ic.stats(vm, "timesync")["outcome"] == "answered", 5, "an answer")
        check_clock(vm)
    finally:
        ic.set_clock(vm, offset=0)
    ic.send_time(vm)
    wait_for(lambda: ic.stats(vm, "timesync")["outcome"] == "answered", 5, "an answer")
    check_clock(vm)


def check_kvp(vm):
    ic.kvp_set(vm, "key", "value")
    assert ic.kvp_get(vm, "key") == "value"
    assert ic.kvp_delete(vm, "key") and ic.kvp_get(vm, "key") is None
    assert ic.kvp_list(vm)["OSName"] == "Dunlin"
    if ic.stats(vm, "kvp")["version"] == "4.0":
        assert f"{address(vm)}/24" in ic.ip_get(vm, "nic0").addresses
    else:
        with pytest.raises(HvError, match="addresses need version 4.0"):
            ic.ip_set(vm, "nic0", ic.Addresses(dhcp=True))


def check_shutdown(vm):
    """The guest agrees to nothing that it cannot do; what it does is tried by the tests that end it."""
    assert stats(vm)["ic"]["shutdown"]["failed"] == 0


CHECKS = {"shutdown": check_shutdown, "heartbeat": check_heartbeat, "timesync": check_timesync,
          "kvp": check_kvp}
VERSIONS = [(service, version) for service, versions in
            {"shutdown": ("1.0", "3.0", "3.1", "3.2"), "heartbeat": ("1.0", "3.0"),
             "timesync": ("1.0", "3.0", "4.0"), "kvp": ("1.0", "3.0", "4.0")}.items()
            for version in versions]


@pytest.mark.parametrize("service, version", VERSIONS, ids=lambda value: value)
def test_version(vm, service, version):
    """Every version that a host may speak at most; each time the device goes and another one comes.
    The last of each is what there was before."""
    major, minor = map(int, version.split("."))
    replace(vm, service, major << 16 | minor)
    assert ic.wait_ready(vm, service, 10) == version
    assert stats(vm)["ic"][service]["version"] == version
    CHECKS[service](vm)


def test_heartbeat_tells_how_it_is(vm):
    """Nobody can reach it: critical. The link is back: healthy."""
    nic.set_link(vm, "nic0", False)
    try:
        wait_for(lambda: ic.stats(vm, "heartbeat")["application"] == "critical", 15, "critical")
    finally:
        nic.set_link(vm, "nic0", True)
    wait_for(lambda: ic.stats(vm, "heartbeat")["application"] == "healthy", 20, "healthy")


def test_clock_is_set(vm, tapnet):
    """The host sets the clock ahead: lines of the log have the time; the guest takes it that it has
    slept, and asks whether its address is still good. A sample far off changes nothing at once."""
    requests = tapnet.log().count("DHCPREQUEST(tap0)")
    since = len(vm.console())
    try:
        ic.set_clock(vm, offset=300)
        ic.send_time(vm)
        vm.wait_console(r"\[ *[\d.]+ \d{4}-\d\d-\d\dT[\d:.]+Z\] c0 info: clock: set ahead by \d+ ms", 10,
                        since)
        check_clock(vm)
        wait_for(lambda: tapnet.log().count("DHCPREQUEST(tap0)") > requests, 20, "a DHCP request")
        steps = stats(vm)["clock"]["steps"]
        ic.set_clock(vm, offset=200)
        ic.send_time(vm, sync=False)
        wait_for(lambda: ic.stats(vm, "timesync")["outcome"] == "answered", 5, "an answer")
        assert stats(vm)["clock"]["steps"] == steps
    finally:
        ic.set_clock(vm, offset=0)
        ic.send_time(vm)
    wait_for(lambda: stats(vm)["clock"]["steps"] > steps, 10, "the right time")
    check_iperf(vm, seconds=1, host=address(vm), port=5201, prefix=tapnet.command())


def test_kvp_about_the_guest(vm):
    pairs = ic.kvp_list(vm)
    assert pairs["OSName"] == "Dunlin" and pairs["ProcessorArchitecture"] == "x86_64"
    version = [pairs[f"OS{part}"] for part in ("MajorVersion", "MinorVersion", "BuildNumber")]
    assert pairs["OSVersion"] == ".".join(version)
    assert int(version[2]) > 0 or not (ROOT / ".git").exists()
    assert pairs["NetworkAddressIPv4"] == address(vm)
    assert "fe80::" in pairs["NetworkAddressIPv6"]
    assert ic.kvp_get(vm, "OSName", "auto") == "Dunlin"
    with pytest.raises(ic.Refused):
        ic.kvp_set(vm, "OSName", "Linux", "auto")


def test_kvp_pools(vm):
    """The host's pools hold what it writes, up to a bound, and give it back."""
    assert ic.kvp_list(vm, "auto-external")["VirtualMachineName"] == vm.name
    assert ic.kvp_list(vm, "guest") == {}
    kept = {}
    with pytest.raises(ic.Refused, match="0x80070070"):
        for number in range(200):
            ic.kvp_set(vm, f"key {number}", f"{number} " * 250)
            kept[f"key {number}"] = f"{number} " * 250
    assert sum(2 * len(value) for value in kept.values()) > FULL
    assert ic.kvp_list(vm, "external") == kept
    for key in kept:
        assert ic.kvp_delete(vm, key)
    assert ic.kvp_list(vm, "external") == {}


def test_ip_injection(vm, tapnet):
    """The host reads the NIC's addresses, sets others, and goes back to DHCP."""
    leased = address(vm)
    found = ic.ip_get(vm, "nic0")
    assert found.dhcp and f"{leased}/24" in found.addresses and found.gateways[0] == tapnet.here()
    wanted = ic.Addresses(False, ["10.77.0.77/24", "fd00::77/64"], [tapnet.here()], ["10.77.0.53"])
    ic.ip_set(vm, "nic0", wanted)
    check_iperf(vm, seconds=1, host="10.77.0.77", port=5201, prefix=tapnet.command())
    found = ic.ip_get(vm, "nic0")
    assert not found.dhcp and found.gateways == wanted.gateways and found.dns == wanted.dns
    wait_for(lambda: set(wanted.addresses) <= set(ic.ip_get(vm, "nic0").addresses), 10,
             "the address of IPv6")
    ic.ip_set(vm, "nic0", ic.Addresses(False, ["10.77.0.77/24"], [tapnet.here()], []))
    assert "fd00::77/64" in ic.ip_get(vm, "nic0").addresses  # nothing was said of IPv6
    for broken in ({"address": "10.77.0.300", "subnet": "255.255.255.0"},
                   {"address": "10.77.0.3", "subnet": "255.0.255.0"},
                   {"address": "10.77.0.3"}, {"address": "x" * 500, "subnet": "255.255.255.0"}):
        status, _ = ic.kvp(vm, "set-ip", adapter="00:15:5D:44:4C:00", family=1, **broken)
        assert status == 0x80070057
    status, _ = ic.kvp(vm, "set-ip", adapter="{00000000-0000-0000-0000-000000000000}", family=1)
    assert status == 0x80041002
    assert ic.ip_get(vm, "nic0").addresses[0] == "10.77.0.77/24"
    ic.ip_set(vm, "nic0", ic.Addresses(dhcp=True))
    wait_for(lambda: f"{leased}/24" in ic.ip_get(vm, "nic0").addresses, 20, "the lease")
    check_iperf(vm, seconds=1, host=leased, port=5201, prefix=tapnet.command())


def run_through(vm, tapnet, event):
    """iperf3 while something happens to the VM: its connections live on."""
    reports = []
    client = threading.Thread(target=lambda: reports.append(iperf.client(
        address(vm), "-t", 6, "-P", 4, "--bidir", port=5201, prefix=tapnet.command())))
    before = vm.stats()["devices"]["nic0"]["rx_bytes"]
    client.start()
    wait_for(lambda: vm.stats()["devices"]["nic0"]["rx_bytes"] > before + 1_000_000, 15, "traffic")
    event()
    client.join(60)
    assert reports and all(reports[0].streams), reports


def test_pause(vm, tapnet):
    """The guest's time stands still; connections wait, and the clock is right again at once."""
    def event():
        ic.pause(vm)
        time.sleep(3)
        ic.resume(vm)
    run_through(vm, tapnet, event)
    check_clock(vm)


@contextlib.contextmanager
def minutes_later(vm, clocks_run):
    """The VM was paused for ten minutes, on a host that freezes the guest's time or on one that does
    not. (Afterwards its clock is this machine's again.)"""
    uptime = stats(vm)["uptime_ms"]
    ic.pause(vm)
    try:
        ic.resume(vm, leap=600, clocks_run=clocks_run)
        assert (stats(vm)["uptime_ms"] - uptime >= 600_000) == clocks_run
        yield
    finally:
        ic.set_clock(vm, offset=0)
        ic.send_time(vm)


LONG_PAUSE = pytest.mark.parametrize("clocks_run", [False, True], ids=["clocks-stand", "clocks-run"])


@LONG_PAUSE
def test_pause_of_minutes(vm, tapnet, clocks_run):
    """The lease is over and asked for again, nothing is sent in a storm, a connection lives on, the
    clock is right."""
    def check_connection():
        sock.sendall(b"still there?")
        assert sock.recv(100) == b"still there?"
    requests = tapnet.log().count("DHCPREQUEST(tap0)")
    with tapnet.enter(lambda: socket.create_connection((address(vm), 7), 20)) as sock:
        check_connection()
        sent = vm.stats()["devices"]["nic0"]["tx_packets"]
        with minutes_later(vm, clocks_run):
            later = time.monotonic() + 3
            check_connection()
            wait_for(lambda: tapnet.log().count("DHCPREQUEST(tap0)") > requests, 20, "a DHCP request")
            check_clock(vm)
            time.sleep(max(0, later - time.monotonic()))
            assert vm.stats()["devices"]["nic0"]["tx_packets"] < sent + 100
            assert f"{address(vm)}/24" in ic.ip_get(vm, "nic0").addresses
            check_connection()


@LONG_PAUSE
def test_pause_of_minutes_under_load(vm, tapnet, clocks_run):
    """What was under way arrives ten minutes late; then data flows both ways as before, and the test ends
    when the client's time is over, which for the guest may be long ago."""
    def moved():
        nic0 = vm.stats()["devices"]["nic0"]
        return nic0["rx_bytes"], nic0["tx_bytes"]

    def more_than(before):
        wait_for(lambda: all(now > then + 2_000_000 for now, then in zip(moved(), before)), 20,
                 "traffic both ways")
    client = tapnet.popen("iperf3", "-c", address(vm), "-t", 15, "-P", 4, "--bidir",
                          stdout=subprocess.DEVNULL)
    try:
        more_than(moved())
        with minutes_later(vm, clocks_run):
            more_than(moved())
            assert client.wait(60) == 0
    finally:
        client.kill()
        client.wait()
    check_iperf(vm, seconds=1, host=address(vm), port=5201, prefix=tapnet.command())


def test_move_to_another_host(vm, tapnet):
    """The TSC runs at twice the rate: reference time does not."""
    khz = vm.qmp("qom-get", path="/machine/hyperv", property="tsc-khz")
    run_through(vm, tapnet, lambda: ic.migrate(vm, 2 * khz))
    guest, here = stats(vm)["uptime_ms"], time.monotonic()
    time.sleep(2)
    passed = (stats(vm)["uptime_ms"] - guest) / 1000 / (time.monotonic() - here)
    assert 0.7 < passed < 1.4, passed
    check_clock(vm)


# The end ------------------------------------------------------------------------------------------


def keep_end(vm):
    """The host keeps the VM after its end, to be asked about it."""
    vm.qmp("set-action", shutdown="pause")


def check_end(vm, said):
    """The machine has ended by itself, and had let go of every channel before (nothing else closes them:
    the host resets no device at a power-off)."""
    wait_for(lambda: vm.qmp("query-status")["status"] == "shutdown", 30, "the end")
    vm.wait_console(said, 10)
    now = vm.stats()
    for name, device in (now["devices"] | now["services"]).items():
        assert not any(channel["open"] for channel in device["channels"]), name


def test_end_by_an_older_version(vm):
    """Of the VM that the tests above share; other versions: below."""
    replace(vm, "shutdown", 0x30001)
    assert ic.wait_ready(vm, "shutdown", 10) == "3.1"
    keep_end(vm)
    ic.ask_to_end(vm)
    check_end(vm, "dunlin: power off")


def start(boot, tmp_path, seconds, version="3.2", **options):
    config = tmp_path / "dunlin.conf"
    config.write_text(f"[services]\necho = on\n[system]\nshutdown-timeout = {seconds}\n")
    major, minor = map(int, version.split("."))
    vm = boot.dunlin(config=config, ic_opts=[f"shutdown,max-version={major << 16 | minor}"], **options)
    assert ic.wait_ready(vm, "shutdown", 10) == version
    return vm


def test_shutdown(boot, tmp_path):
    """A running test goes on to its end, a new one is refused, then the machine is off."""
    vm = start(boot, tmp_path, 60, vcpus=2)
    reports = []
    client = threading.Thread(target=lambda: reports.append(
        check_iperf(vm, "-P", 4, seconds=4)))
    before = vm.stats()["devices"]["nic0"]["rx_bytes"]
    client.start()
    wait_for(lambda: vm.stats()["devices"]["nic0"]["rx_bytes"] > before + 1_000_000, 15, "traffic")
    keep_end(vm)
    ic.ask_to_end(vm, message="Good night")
    vm.wait_console('"Good night"', 10)  # the answer goes out before the log is written
    vm.wait_console("power: power off", 10)
    wait_for(lambda: ic.stats(vm, "heartbeat")["application"] == "stopped", 15, "stopped")
    with pytest.raises(OSError), socket.create_connection(("127.0.0.1", vm.port), 10) as sock:
        sock.sendall(b"x")  # user networking accepts before it asks the guest
        assert not sock.recv(1), "there is somebody"
        raise OSError("closed")
    client.join(30)
    assert reports, "the test did not finish"
    check_end(vm, "dunlin: power off")
    assert "dropped" not in vm.console()


def test_restart_drops_what_stays(boot, tmp_path, tapnet):
    """A connection that does not end is reset when its time is over."""
    vm = start(boot, tmp_path, 1, "1.0", nics=["tap:tap1"], netns=tapnet.name)
    keep_end(vm)
    with tapnet.enter(lambda: socket.create_connection((address(vm), 7), 10)) as sock:
        sock.sendall(b"x")
        assert sock.recv(1) == b"x"
        ic.ask_to_end(vm, restart=True, timeout=30)
        with pytest.raises(ConnectionResetError):
            sock.recv(1)
    check_end(vm, "dunlin: restart")
    assert "power: 1 connections are dropped" in vm.console()


def test_forced(boot, tmp_path, tapnet):
    """At once, whatever runs."""
    vm = start(boot, tmp_path, 3600, "3.0", nics=["tap:tap1"], netns=tapnet.name)
    with tapnet.enter(lambda: socket.create_connection((address(vm), 7), 10)) as sock:
        sock.sendall(b"x")
        assert sock.recv(1) == b"x"
        ic.shutdown(vm, force=True, timeout=20)
    assert "dropped" not in vm.console() and "dunlin: power off" in vm.console()
