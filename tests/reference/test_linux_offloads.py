# SPDX-License-Identifier: BSD-2-Clause
"""The witness and what the NIC does for it: large sends (LSO, Linux's TSO), coalesced receives
(RSC, its LRO), checksums, VLAN tags, jumbo frames, the packet filter. Each is switched at run time,
or taken away by a NIC without it or of an older version, and all that is sent comes back as it was. Needs root for the
tap."""

import re
import socket
import struct
import time

import pytest

from icmp import check_ping
from linux import Linux, spec_fields
from support import check_echo

MAC = "00:15:5d:44:4c:7a"
HERE6, GUEST6 = "fd77::1", "fd77::2"
LARGE = ("tx_large", "rx_coalesced")
COUNTERS = (*LARGE, "tx_csum_offloaded", "rx_cut", "rx_dropped", "tx_errors")
SO_AUXDATA, SOL_PACKET, TAG_VALID = 8, 263, 0x10
ETH_P_ALL = 3


def nic(guest):
    return guest.vm.stats()["devices"]["nic0"]


def configure(guest):
    """Addresses of both families, at once."""
    guest.check("echo 0 >/proc/sys/net/ipv6/conf/eth0/accept_dad; ip link set eth0 up; "
                "ip addr add 10.77.0.2/24 dev eth0; ip addr add fd77::2/64 dev eth0")


@pytest.fixture(scope="module")
def guest(module_boot, tapnet):
    tapnet.run("ip", "address", "add", f"{HERE6}/64", "dev", "tap0", "nodad")
    linux = Linux(module_boot.start(**spec_fields(
        "net=none peer=on", vcpus=1, nics=[f"tap:tap0,mac={MAC}"], netns=tapnet.name)))
    configure(linux)
    return linux


def counted(guest, tapnet, addresses=("10.77.0.2", GUEST6)):
    """What echoes add to the counters of the NIC."""
    before = nic(guest)
    for address in addresses:
        check_echo(tapnet, address, 4 << 20)
    after = nic(guest)
    assert after["tx_errors"] == before["tx_errors"]
    return {name: after[name] - before[name] for name in COUNTERS}


def test_offered(guest):
    features = guest.check("ethtool -k eth0")
    for name in ("rx-checksumming", "tx-checksumming", "tx-tcp-segmentation",
                 "tx-tcp6-segmentation", "large-receive-offload", "rx-vlan-offload",
                 "tx-vlan-offload"):
        assert re.search(rf"^\s*{name}: on", features, re.M), features


@pytest.mark.parametrize("address", ["10.77.0.2", GUEST6])
def test_large_both_ways(guest, tapnet, address):
    counts = counted(guest, tapnet, [address])
    assert all(counts[name] > 20 for name in LARGE), counts
    assert nic(guest)["tx_large_peak"] > 20000 and nic(guest)["rx_coalesced_peak"] > 20000


@pytest.mark.parametrize("feature, counter", zip(("tso", "lro"), LARGE))
def test_switch(guest, tapnet, feature, counter):
    """Off and on again while data flows before and after."""
    guest.check(f"ethtool -K eth0 {feature} off")
    counts = counted(guest, tapnet)
    assert counts[counter] == 0 and sum(counts[name] for name in LARGE) > 20, counts
    guest.check(f"ethtool -K eth0 {feature} on")
    assert counted(guest, tapnet)[counter] > 20


def frame(tag=None, to=b"\xff" * 6):
    """An ARP request of 10.77.5.1 for 10.77.5.2."""
    return (to + bytes.fromhex("020000000001") +
            (struct.pack("!HH", 0x8100, tag) if tag is not None else b"") +
            struct.pack("!HHHBBH", 0x806, 1, 0x800, 6, 4, 1) + bytes.fromhex("020000000001") +
            bytes([10, 77, 5, 1]) + bytes(6) + bytes([10, 77, 5, 2]) + bytes(18))


def packet_socket(tapnet):
    sock = tapnet.enter(lambda: socket.socket(socket.AF_PACKET, socket.SOCK_RAW,
                                              socket.htons(ETH_P_ALL)))
    sock.bind(("tap0", ETH_P_ALL))
    sock.setsockopt(SOL_PACKET, SO_AUXDATA, 1)
    sock.settimeout(60)
    return sock


def test_vlan(guest, tapnet):
    """A tagged request reaches the VLAN's interface without its tag, and the answer has one."""
    guest.check("modprobe 8021q && vconfig add eth0 5 && ip addr add 10.77.5.2/24 dev eth0.5 && "
                "ip link set eth0.5 up")
    try:
        with packet_socket(tapnet) as sock:
            sock.send(frame(tag=5))
            while True:
                data, control, _, _ = sock.recvmsg(2000, 100)
                if data[:6] == bytes.fromhex("020000000001"):
                    break
            status, *_, tag, _ = struct.unpack("IIIHHHH", control[0][2])
            assert status & TAG_VALID and tag == 5 and data[12:14] == b"\x08\x06"
        received = guest.check("cat /sys/class/net/eth0.5/statistics/rx_packets")
        assert int(received) >= 1
    finally:
        # with a VLAN on it Linux takes no large frames any more
        guest.check("vconfig rem eth0.5 && ethtool -K eth0 lro on")


def test_filter(guest, tapnet):
    """What is for others comes only when it is asked for."""
    def strange():
        before = nic(guest)
        with packet_socket(tapnet) as sock:
            for _ in range(10):
                sock.send(frame(to=bytes.fromhex("00155d000001")))
        for _ in range(300):
            after = nic(guest)
            seen = [after[name] - before[name] for name in ("rx_filtered", "rx_packets")]
            if max(seen) >= 10:
                return seen
            time.sleep(0.05)
        return seen
    filtered, passed = strange()
    assert filtered >= 10 and passed < 10
    guest.check("ip link set eth0 promisc on")
    filtered, passed = strange()
    guest.check("ip link set eth0 promisc off")
    assert filtered == 0 and passed >= 10


def test_jumbo(guest, tapnet):
    """Frames of 9000 bytes and an odd size, with and without large ones."""
    for mtu in (9000, 4001):
        tapnet.run("ip", "link", "set", "tap0", "mtu", mtu)
        guest.check(f"ip link set eth0 mtu {mtu}")
        assert nic(guest)["mtu"] == mtu + 14
        counts = counted(guest, tapnet)
        assert all(counts[name] > 10 for name in LARGE), counts
        check_ping(tapnet, "10.77.0.2", size=mtu - 28, whole=True)
    guest.check("ethtool -K eth0 tso off lro off")
    counted(guest, tapnet)
    tapnet.run("ip", "link", "set", "tap0", "mtu", 1500)
    guest.check("ip link set eth0 mtu 1500 && ethtool -K eth0 tso on lro on")


def test_few_sections(guest, tapnet):
    """A receive buffer with room for hardly more than one large frame: others wait, none is lost."""
    usual = re.search(r"Current.*?RX:\s+(\d+)", guest.check("ethtool -g eth0"), re.S)[1]
    guest.check("ethtool -G eth0 rx 90")
    assert nic(guest)["rx_sections"] < 110
    for lro, counter in (("on", "rx_coalesced"), ("off", "rx_cut"), ("on", "rx_coalesced")):
        guest.check(f"ethtool -K eth0 lro {lro}")
        before = nic(guest)
        counts = counted(guest, tapnet)
        assert counts[counter] > 20 and counts["rx_dropped"] == 0, counts
        assert nic(guest)["rx_stalls_section"] > before["rx_stalls_section"]
    guest.check(f"ethtool -G eth0 rx {usual}")


def replug(guest, **properties):
    guest.vm.qmp("device_del", id="nic0")
    for wanted in (False, True):
        if wanted:
            guest.vm.qmp("device_add", driver="hv-net", id="nic0", netdev="net0", mac=MAC,
                         **properties)
        guest.check("for i in $(seq 300); do [ -e /sys/class/net/eth0 ] " +
                    ("&&" if wanted else "||") + " exit 0; sleep 0.1; done; exit 1")
        while not wanted and "nic0" in guest.vm.stats()["devices"]:
            time.sleep(0.05)
    configure(guest)


# Properties of a poorer NIC; what Linux then says is off; counters that stay 0.
POORER = [
    *(({"max-nvsp": version}, ("large-receive-offload",), ("rx_coalesced",))
      for version in (0x60000, 0x50000, 0x40000, 0x30002, 0x2)),
    ({"csum-tx4": False}, ("tx-tcp-segmentation",), ()),
    ({"csum-tx6": False}, ("tx-tcp6-segmentation",), ()),
    ({"csum-rx4": False}, (), ()),
    ({"csum-rx6": False}, (), ()),
    ({"csum": False}, ("tx-checksumming", "tx-tcp-segmentation"),
     ("tx_csum_offloaded", "tx_large")),
    ({"lso4": False}, ("tx-tcp-segmentation",), ()),
    ({"lso6": False}, ("tx-tcp6-segmentation",), ()),
    ({"lso": False}, ("tx-tcp-segmentation", "tx-tcp6-segmentation"), ("tx_large",)),
    ({"rsc": False}, ("large-receive-offload",), ("rx_coalesced",)),
    ({"batch-ranges": 1}, (), ()),
    ({"filter": False}, (), ()),
]


@pytest.mark.parametrize("properties, off, none", POORER,
                         ids=[",".join(f"{k}={v:#x}" for k, v in case[0].items()) for case in POORER])
def test_poorer_nic(guest, tapnet, properties, off, none):
    replug(guest, **properties)
    features = guest.check("ethtool -k eth0")
    for name in off:
        assert re.search(rf"^\s*{name}: off", features, re.M), features
    assert nic(guest)["nvsp_version"] == properties.get("max-nvsp", 0x60001)
    counts = counted(guest, tapnet)
    assert all(counts[name] == 0 for name in none), counts
    assert counts["rx_dropped"] == 0
    # what the tap brings as one frame goes to the guest as one, or in pieces
    assert bool(counts["rx_cut"]) != bool(counts["rx_coalesced"]), counts


def test_no_complaint(guest):
    after = nic(guest)
    assert after["rx_sections_outstanding"] <= 64
    assert guest.kernel_complaints() == []
