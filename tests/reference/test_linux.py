# SPDX-License-Identifier: BSD-2-Clause
"""The witness: Debian's unmodified Linux with its own hv_vmbus and hv_netvsc accepts the emulated
host. What it negotiates, complains about and moves keeps the host honest."""

import concurrent.futures
import contextlib
import os
import re
import socket

import pytest

from hvlib import iperf
from hvlib.vm import Forward
from linux import Linux, spec_fields
from support import check_echo, check_steady, free_port

VERSIONS = {"5.0": 0x50000, "4.0": 0x40000, "3.0": 0x30000, "2.4": 0x20004}


def boot_linux(booter, **fields):
    """Boots the guest on user networking; guest.port leads to its iperf3, guest.echo to its echo."""
    port, echo = free_port(), free_port()
    guest = Linux(booter.start(**spec_fields("peer=on", forwards=[Forward(port, 5201), Forward(echo, 7)],
                                             **fields)))
    guest.port, guest.echo = port, echo
    return guest


def check_iperf(guest, *options, seconds=1):
    # One server process serves one test; wait until the next one listens.
    guest.check("until netstat -ltn | grep -q :5201; do sleep 0.1; done")
    report = iperf.client("127.0.0.1", "-t", seconds, *options, port=guest.port,
                          one_off_server=True)
    assert report.received_bytes > 1_000_000
    check_steady(report, seconds)


@contextlib.contextmanager
def calling(guest, server, command):
    """The connection that a command in the guest makes to `server`; then waits for the command's end."""
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        done = pool.submit(guest.check, command, 120)
        with server.accept()[0] as sock:
            sock.settimeout(60)
            yield sock
        done.result()


@pytest.fixture(scope="module", params=[1, 2, 4], ids=lambda n: f"vcpus{n}")
def guest(request, module_boot):
    linux = boot_linux(module_boot, vcpus=request.param)
    linux.vcpus = request.param
    yield linux
    linux.vm.stop()


def test_detects_hyperv(guest):
    log = guest.check("dmesg")
    assert "Hypervisor detected: Microsoft Hyper-V" in log
    assert int(guest.check("nproc")) == guest.vcpus
    assert guest.check("cat /sys/devices/system/clocksource/clocksource0/current_clocksource") \
        == "hyperv_clocksource_tsc_page"


def test_negotiates_newest_vmbus(guest):
    assert "hv_vmbus: Vmbus version:5.3" in guest.check("dmesg")


def test_dhcp_lease(guest):
    assert guest.address == "10.0.2.15"
    assert "router=10.0.2.2" in guest.check("cat /tmp/lease")


def test_iperf_to_guest(guest):
    check_iperf(guest, seconds=3)


def test_iperf_from_guest(guest):
    check_iperf(guest, "-R", seconds=3)


def test_iperf_parallel(guest):
    check_iperf(guest, "-P", 8, seconds=2)
    check_iperf(guest, "-P", 8, "-R", seconds=2)


def test_checksum_offloads_on(guest):
    features = guest.check("ethtool -k eth0")
    assert re.search(r"^rx-checksumming: on", features, re.M), features
    assert re.search(r"^tx-checksumming: on", features, re.M), features


def test_large_sends_are_cut(guest):
    """User networking takes none as they are. What arrives is what was sent, both ways."""
    guest.check("until netstat -ltn | grep -q ':7 '; do sleep 0.1; done")
    before = guest.vm.stats()["devices"]["nic0"]
    check_echo(None, "127.0.0.1", 4 << 20, port=guest.echo)
    after = guest.vm.stats()["devices"]["nic0"]
    large = after["tx_large"] - before["tx_large"]
    assert after["tx_large_segments"] - before["tx_large_segments"] > 2 * large > 40


def test_large_sends_are_cut_ip6(guest):
    """Noise to the guest and back; there are no forwarded ports, so it calls us."""
    noise = os.urandom(4 << 20)
    before = guest.vm.stats()["devices"]["nic0"]["tx_large"]
    guest.check("echo 0 >/proc/sys/net/ipv6/conf/eth0/accept_dad; ip -6 address add fec0::77/64 dev eth0")
    with socket.create_server(("::1", 0), family=socket.AF_INET6) as server:
        server.settimeout(60)
        call = f"nc fec0::2 {server.getsockname()[1]}"
        with calling(guest, server, f"{call} >/tmp/noise </dev/null") as sock:
            sock.sendall(noise)
        with calling(guest, server, f"{call} </tmp/noise") as sock:
            back = bytearray()
            while part := sock.recv(1 << 20):
                back += part
    assert back == noise
    assert guest.vm.stats()["devices"]["nic0"]["tx_large"] > before + 20


def test_link_flap(guest):
    for up in (False, True):
        guest.vm.qmp("set_link", name="nic0", up=up)
        guest.check(f"for i in $(seq 300); do [ $(cat /sys/class/net/eth0/carrier) = {int(up)} ] "
                    "&& exit 0; sleep 0.1; done; exit 1")
    guest.check("ping -c 2 -W 5 10.0.2.2")


def test_reload_driver(guest):
    for _ in range(2):
        guest.check("rmmod hv_netvsc")
        assert guest.run("test -e /sys/class/net/eth0")[0] != 0
        guest.check("modprobe hv_netvsc")
        guest.check("for i in $(seq 300); do [ -e /sys/class/net/eth0 ] && exit 0; sleep 0.1; "
                    "done; exit 1")
        guest.check("ip link set eth0 up && udhcpc -q -n -t 10 -T 1 -i eth0 -s /etc/udhcpc.script")
        guest.check("ping -c 2 -W 5 10.0.2.2")
    check_iperf(guest)


def test_no_complaint(guest):
    """Last of the shared guest: everything above has happened."""
    assert guest.kernel_complaints() == []


def test_counters(guest):
    """The host's counters agree with what the guest has counted itself."""
    nic = guest.vm.stats()["devices"]["nic0"]
    assert nic["rx_packets"] > 1000 and nic["tx_packets"] > 1000
    assert nic["rx_sections_outstanding"] <= nic["rx_sections_peak"]
    vps = guest.vm.stats()["vps"]
    assert sum(vp["hypercalls"]["signal_event"] for vp in vps) > 0
    assert sum(vp["interrupts"] for vp in vps) > 0


@pytest.mark.parametrize("version", VERSIONS)
def test_older_vmbus(boot, version):
    """Capped to an older protocol the guest falls back to it and works as well."""
    guest = boot_linux(boot, vcpus=1, max_version=VERSIONS[version])
    assert f"hv_vmbus: Vmbus version:{version}" in guest.check("dmesg")
    assert guest.address == "10.0.2.15"
    check_iperf(guest)
    check_iperf(guest, "-R")
    guest.check("rmmod hv_netvsc && modprobe hv_netvsc")
    assert guest.kernel_complaints() == []
