# SPDX-License-Identifier: BSD-2-Clause
"""The integration services, each by name and in each version; what the host does with a whole VM: ends
it, pauses it, moves it."""

import datetime
import socket
import threading
import time

import pytest

from dunlin import address, check_iperf, stats
from hvlib import ic, iperf, nic
from hvlib.tapnet import TapNet
from support import wait_for

FULL = 64 << 10  # bytes that a guest takes of a pool at least


@pytest.fixture(scope="module")
def tapnet():
    """tap0 for the VM that most tests share, tap1 for those that end."""
    with TapNet("ic", taps=2) as net:
        yield net


@pytest.fixture(scope="module")
def vm(module_boot, tapnet, tmp_path_factory):
    config = tmp_path_factory.mktemp("ic") / "dunlin.conf"
    config.write_text("[services]\necho = on\n")
    return module_boot.dunlin(vcpus=2, config=config, nics=["tap:tap0"], netns=tapnet.name)


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


CHECKS = {"shutdown": lambda vm: None, "heartbeat": check_heartbeat, "timesync": check_timesync,
          "kvp": check_kvp}
VERSIONS = [(service, version) for service, versions in
            {"shutdown": ("1.0", "3.0", "3.1", "3.2"), "heartbeat": ("1.0", "3.0"),
             "timesync": ("1.0", "3.0", "4.0"), "kvp": ("1.0", "3.0", "4.0")}.items()
            for version in versions]


@pytest.mark.parametrize("service, version", VERSIONS, ids=lambda value: value)
def test_version(vm, service, version):
    """Every version that a host may speak at most; each time the device goes and another one comes.
    The last of each is what there was before. (What shutdown does: below.)"""
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
    assert pairs["OSVersion"].startswith(f"{pairs['OSMajorVersion']}.{pairs['OSMinorVersion']}")
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


def start(boot, tmp_path, seconds, **options):
    config = tmp_path / "dunlin.conf"
    config.write_text(f"[services]\necho = on\n[system]\nshutdown-timeout = {seconds}\n")
    vm = boot.dunlin(config=config, **options)
    ic.wait_ready(vm, "shutdown", 10)
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
    assert vm.wait_exit(20) == "guest-shutdown"
    assert "dunlin: power off" in vm.console() and "dropped" not in vm.console()


def test_restart_drops_what_stays(boot, tmp_path, tapnet):
    """A connection that does not end is reset when its time is over."""
    vm = start(boot, tmp_path, 1, nics=["tap:tap1"], netns=tapnet.name)
    with tapnet.enter(lambda: socket.create_connection((address(vm), 7), 10)) as sock:
        sock.sendall(b"x")
        assert sock.recv(1) == b"x"
        ic.shutdown(vm, restart=True, timeout=30)
        with pytest.raises(ConnectionResetError):
            sock.recv(1)
    assert vm.wait_exit(5) == "guest-reset"
    assert "power: 1 connections are dropped" in vm.console()


def test_forced(boot, tmp_path, tapnet):
    """At once, whatever runs."""
    vm = start(boot, tmp_path, 3600, nics=["tap:tap1"], netns=tapnet.name)
    with tapnet.enter(lambda: socket.create_connection((address(vm), 7), 10)) as sock:
        sock.sendall(b"x")
        assert sock.recv(1) == b"x"
        ic.shutdown(vm, force=True, timeout=20)
    assert "dropped" not in vm.console() and "dunlin: power off" in vm.console()
