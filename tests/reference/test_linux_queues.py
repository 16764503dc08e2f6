# SPDX-License-Identifier: BSD-2-Clause
"""The witness with a NIC of four channels on four processors (tap, needs root): all channels carry
traffic, and everything a guest may change about them at run time can be changed."""

import re
import socket

import pytest

from hvlib import HvError, iperf, wire
from hvlib.nic import set_send_table
from hvlib.vm import Forward
from linux import Linux, spec_fields
from support import free_port, wait_for

MULTI_QUEUE = True
QUEUES = 4
NVSP_6 = 0x60000


def nic(guest):
    return guest.vm.stats()["devices"]["nic0"]


def open_channels(guest):
    return [c for c in nic(guest)["channels"] if c["open"]]


def wait_channels(guest, count):
    """Until the host has `count` open channels; the guest opens them in the background."""
    for _ in range(300):
        if len(open_channels(guest)) == count and nic(guest)["rss_hash"]:
            return
        guest.check("sleep 0.1")
    assert len(open_channels(guest)) == count


@pytest.fixture(scope="module")
def guest(module_boot, tapnet):
    linux = Linux(module_boot.start(**spec_fields(
        "peer=on", vcpus=4, nics=["tap:tap0,mac=00:15:5d:44:4c:79"], netns=tapnet.name,
        nic_opts=[f"queues={QUEUES}"])))
    wait_channels(linux, QUEUES)
    return linux


def traffic(guest, tapnet, *options):
    """One iperf3 run; returns what each channel did meanwhile as a list of {counter: number}."""
    before = nic(guest)["channels"]
    guest.check("until netstat -ltn | grep -q :5201; do sleep 0.1; done")
    report = iperf.client(guest.address, *options, prefix=tapnet.command(), one_off_server=True)
    assert report.received_bytes > 1_000_000
    assert all(report.intervals), f"stalled: {report.intervals}"
    return [{key: after[key] - old[key] for key in ("rx_packets", "tx_packets")}
            for old, after in zip(before, nic(guest)["channels"])]


def lease(guest):
    guest.check("ip link set eth0 up && udhcpc -q -n -t 10 -T 1 -i eth0 -s /etc/udhcpc.script")


def test_channels(guest):
    assert {c["target_vp"] for c in open_channels(guest)} == set(range(QUEUES))
    assert nic(guest)["subchannels"] == QUEUES - 1
    assert nic(guest)["rss_hash"] == 0x1701
    assert re.search(rf"Combined:\s+{QUEUES}\n(?s:.*)Combined:\s+{QUEUES}",
                     guest.check("ethtool -l eth0"))


def test_all_channels_carry_traffic(guest, tapnet):
    """32 streams in two runs: each channel has at least a tenth of what the busiest has."""
    runs = [traffic(guest, tapnet, "-t", 3, "-P", 16, *way) for way in ((), ("-R",))]
    for counter in ("rx_packets", "tx_packets"):
        counts = [sum(run[i][counter] for run in runs) for i in range(QUEUES)]
        assert min(counts) * 10 > max(counts), (counter, runs)
    assert nic(guest)["tx_large"] > 100 and nic(guest)["rx_coalesced"] > 100
    queues = nic(guest)["backend_queues"]
    assert len(queues) == QUEUES
    assert all(queue["tx_frames"] > 100 and queue["rx_frames"] > 100 for queue in queues), queues


@pytest.mark.parametrize("way", [(), ("-R",)], ids=wire.SIDES)
def test_bad_wire(guest, tapnet, way):
    """One wire for all channels: it hurts, and stops none of them. 10 ms of round trip."""
    counts = []
    wire.impair(guest.vm, delay=5, loss=0.1, reorder=1)
    for _ in range(2):
        counts.append(traffic(guest, tapnet, "-t", 3, "-P", 16, *way))
    wire.off(guest.vm)
    bad = nic(guest)["wire"]["from_guest" if way else "to_guest"]
    assert bad["lost"] > 0 and bad["reordered"] > 0
    wait_for(lambda: not any(side["queued_frames"] for side in nic(guest)["wire"].values()), 20,
             "an empty wire")
    counter = "tx_packets" if way else "rx_packets"
    assert all(sum(run[i][counter] for run in counts) > 100 for i in range(QUEUES)), counts


def test_table(guest, tapnet):
    """Frames go where the guest's table sends them."""
    table = guest.check("ethtool -x eth0")
    assert re.search(r"^ *0: +0 +1 +2 +3 +0", table, re.M), table
    assert "toeplitz: on" in table
    guest.check("ethtool -X eth0 weight 0 1 0 0")
    try:
        counts = [c["rx_packets"] for c in traffic(guest, tapnet, "-t", 1, "-P", 4)]
        # all but what is not IP stays on one channel
        assert counts[1] > 100 and counts[0] < 20 and counts[2:] == [0, 0], counts
    finally:
        guest.check("ethtool -X eth0 default")


def test_another_send_table(guest, tapnet):
    """The host asks at any time by which channels it wants to be sent to, and gets its way."""
    assert guest.vm.qmp("qom-get", path="/machine/peripheral/nic0", property="send-table") == \
        ",".join(str(i % QUEUES) for i in range(16))
    for channels in ([2], [3, 1], range(QUEUES)):
        set_send_table(guest.vm, "nic0", channels)
        counts = [c["tx_packets"] for c in traffic(guest, tapnet, "-t", 1, "-P", 16, "-R")]
        used = {i for i, count in enumerate(counts) if count > 50}
        # One of four may get none of 16 flows.
        assert used <= set(channels) and len(used) >= min(len(channels), QUEUES - 1), counts
    for wrong, reason in (([QUEUES], "0 to 3"), ([0] * 17, "1 to 16"), ([-1], "0 to 3")):
        with pytest.raises(HvError, match=reason):
            set_send_table(guest.vm, "nic0", wrong)


def toeplitz(key, data):
    """The hash of receive side scaling: the sum of the key's 32-bit windows where the data has a 1."""
    bits, window, result = int.from_bytes(data, "big"), int.from_bytes(key, "big"), 0
    for place in range(8 * len(data)):
        if bits >> (8 * len(data) - 1 - place) & 1:
            result ^= window >> (8 * len(key) - 32 - place) & 0xffffffff
    return result


def connect(guest, tapnet, address):
    """A connection to the guest's discard port; returns it with its addresses and ports as they are
    in its packets, and the channels that meanwhile got any."""
    before = nic(guest)["channels"]
    sock = tapnet.enter(lambda: socket.create_connection((address, 9), timeout=60))
    got = {i for i, (old, new) in enumerate(zip(before, nic(guest)["channels"]))
           if new["rx_packets"] > old["rx_packets"]}
    ends = (sock.getsockname(), sock.getpeername())
    parts = [socket.inet_pton(sock.family, end[0].split("%")[0]) for end in ends]
    return sock, b"".join(parts + [end[1].to_bytes(2, "big") for end in ends]), got


@pytest.mark.parametrize("family", ["IPv4", "IPv6"])
def test_hash(guest, tapnet, family):
    """Each frame comes with its hash by the guest's key, and on the channel that the guest's table
    has for that. Had a frame none, the guest's kernel would make one up by another key."""
    shown = guest.check("ethtool -x eth0")
    key = bytes.fromhex(re.search(r"RSS hash key:\s+([\da-f:]+)", shown)[1].replace(":", ""))
    table = [int(queue) for row in re.findall(r"^ *\d+:((?: +\d+)+)$", shown, re.M)
             for queue in row.split()]
    assert len(key) == 40 and len(table) == 128
    address = guest.address
    if family == "IPv6":
        guest.check("ip -6 address add fe80::77/64 dev eth0")
        address = "fe80::77%tap0"
    pid = guest.check("peer hashes eth0 >/tmp/hashes & "
                      "until grep -q listening /tmp/hashes; do sleep 0.1; done; echo $!")
    sockets, expected = [], {}
    try:
        for _ in range(20):
            sock, input_, channels = connect(guest, tapnet, address)
            sockets.append(sock)
            expected[input_] = toeplitz(key, input_)
            assert table[expected[input_] % len(table)] in channels
        guest.check("until [ $(sort -u /tmp/hashes | wc -l) -gt 20 ]; do sleep 0.1; done")
    finally:
        guest.check(f"kill {pid}")
        for sock in sockets:
            sock.close()
    lines = guest.check("grep ' ' /tmp/hashes").splitlines()
    assert {bytes.fromhex(ends): int(value, 16) for value, ends in map(str.split, lines)} == expected
    assert len(set(expected.values())) == 20


def test_move_interrupts(guest, tapnet):
    """MODIFYCHANNEL: each subchannel is moved to the next processor while traffic flows."""
    folder = "/sys/class/net/eth0/device/channels"
    for channel in open_channels(guest)[1:]:
        target = (channel["target_vp"] + 1) % 4
        guest.check(f"echo {target} > {folder}/{channel['relid']}/cpu")
        targets = {c["relid"]: c["target_vp"] for c in open_channels(guest)}
        assert targets[channel["relid"]] == target
    counts = traffic(guest, tapnet, "-t", 1, "-P", 16)
    assert sum(c["rx_packets"] > 0 for c in counts) >= 2


@pytest.mark.parametrize("count", [2, 1, 3, 4])
def test_change_count(guest, tapnet, count):
    guest.check(f"ethtool -L eth0 combined {count}")
    if count > 1:
        wait_channels(guest, count)
    assert len(open_channels(guest)) == count
    lease(guest)
    counts = traffic(guest, tapnet, "-t", 1, "-P", 8)
    assert not any(c["rx_packets"] or c["tx_packets"] for c in counts[count:])


def test_change_mtu(guest, tapnet):
    for mtu in (3000, 1500):
        guest.check(f"ip link set eth0 mtu {mtu}")
        wait_channels(guest, QUEUES)
        assert nic(guest)["mtu"] == mtu + 14
        lease(guest)
        traffic(guest, tapnet, "-t", 1, "-P", 4)


def test_reload_driver(guest, tapnet):
    for _ in range(3):
        guest.check("rmmod hv_netvsc")
        assert open_channels(guest) == []
        guest.check("modprobe hv_netvsc")
        wait_channels(guest, QUEUES)
    lease(guest)
    traffic(guest, tapnet, "-t", 1, "-P", 8)


def test_nothing_is_left(guest):
    for _ in range(300):
        after = nic(guest)
        if after["rx_sections_outstanding"] <= 64 * QUEUES:  # given back in batches
            break
        guest.check("sleep 0.1")
    assert after["rx_sections_outstanding"] <= 64 * QUEUES
    assert after["tx_errors"] == 0 and after["tx_pending"] == 0
    assert after["rx_sections_outstanding"] == \
        sum(c["rx_sections_outstanding"] for c in after["channels"])
    assert guest.kernel_complaints() == []


def wait_interface(guest, operator):
    """Until eth0 is there (&&) or gone (||)."""
    guest.check(f"for i in $(seq 300); do [ -e /sys/class/net/eth0 ] {operator} exit 0; sleep 0.1; "
                "done; exit 1")


def test_unplug(guest):
    """All channels are rescinded and released; afterwards the NIC may come back."""
    guest.vm.qmp("device_del", id="nic0")
    wait_interface(guest, "||")
    for _ in range(300):
        if "nic0" not in guest.vm.stats()["devices"]:
            break
        guest.check("sleep 0.1")
    guest.vm.qmp("device_add", driver="hv-net", id="nic0", netdev="net0", queues=QUEUES,
                 mac="00:15:5d:44:4c:79")
    wait_interface(guest, "&&")
    wait_channels(guest, QUEUES)
    lease(guest)
    guest.check("ping -c 2 -W 5 10.77.0.1")


def test_old_send_table(boot):
    """The table with the wrong offset of older hosts: Linux sends on all channels all the same."""
    port = free_port()
    guest = Linux(boot.start(**spec_fields(
        vcpus=4, forwards=[Forward(port, 5201)],
        nic_opts=[f"queues={QUEUES}", f"max-nvsp={NVSP_6:#x}", "old-send-table=on"])))
    wait_channels(guest, QUEUES)
    report = iperf.client("127.0.0.1", "-t", 2, "-P", 16, "-R", port=port, one_off_server=True)
    assert report.received_bytes > 1_000_000
    counts = [c["tx_packets"] for c in open_channels(guest)]
    assert sum(c > 100 for c in counts) >= 3, counts
    assert guest.kernel_complaints() == []
