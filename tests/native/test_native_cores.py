# SPDX-License-Identifier: BSD-2-Clause
"""The stack on several cores, in turns on one thread: what arrives on a wrong core, by chance or by
design, reaches the right one, whatever it is. The NIC's table never follows the owners of flows here, so
that most connections live on another core than the one their packets arrive on."""

import random
import socket
import struct
import subprocess
import time
from pathlib import Path

import pytest

from icmp import check_ping
from packets import checksum, frame, icmp, ip4, raw_socket
from program import HERE, SERVER, Native, build, run

CORES = 4
LOAD = Path(__file__).resolve().parent.parent / "e2e" / "echo_load.py"


@pytest.fixture(scope="module", autouse=True)
def program():
    build()


@pytest.fixture(params=["plain", "offload"])
def native(request):
    n = Native("--cores", CORES, *(["--offload"] if request.param == "offload" else []))
    n.wait_log(rb"address fe80::")  # the last that takes memory by itself
    yield n
    n.close()


def test_refused_messages(program):
    """A tenth of the messages between cores is refused: addresses, neighbours, routers, questions of the
    service and packets get there all the same, or are sent again."""
    native = Native("--cores", CORES, "--offload", "--refuse", 10, "--address6", "fd77::2/64")
    try:
        run("ip", "-n", native.namespace, "addr", "add", "fd77::1/64", "dev", "tap0", "nodad")
        native.wait_log(rb"ready: iperf3 on fd77::2 port 5201")
        echo(native, 20, 1000)
        echo(native, 20, 1000, server="fd77::2")
        for options in ([], ["-R"]):
            report = native.iperf3("-n", "256K", "-P", "8", *options)
            assert "error" not in report, report["error"]
        assert nic(native)["lost"] > 0
    finally:
        native.close()


def nic(native):
    return native.stats()["net"]["nic0"]


def echo(native, connections, size, timeout=60, server=SERVER):
    """Echoes on so many connections at once; every byte is compared."""
    with subprocess.Popen([*native.inside, "/usr/bin/python3", LOAD, server, str(connections),
                           str(size)], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                          stderr=subprocess.STDOUT, text=True) as load:
        said, _ = load.communicate(timeout=timeout)
    assert said == "open\nechoed\n", said


@pytest.mark.parametrize("size", [0, 1472, 1473, 8000])
def test_ping(native, size):
    check_ping(native, SERVER, size=size)


def test_many_connections(native):
    """Evenly over the cores; nothing stays of them."""
    before = native.objects()
    load = subprocess.Popen([*native.inside, "/usr/bin/python3", LOAD, SERVER, "64", "20000"],
                            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    with load:
        assert load.stdout.readline() == "open\n" and load.stdout.readline() == "echoed\n"
        counts = [core["connections"] for core in nic(native)["cores"].values()]
        load.stdin.close()
    assert sum(counts) == 64 and max(counts) <= 20, counts
    native.wait_objects(before, 30)
    numbers = nic(native)
    assert numbers["handed_over"] == sum(core["taken_over"] for core in numbers["cores"].values())
    assert numbers["handed_over"] > 0 and numbers["lost"] == 0
    assert all(core["connections"] == 0 for core in nic(native)["cores"].values())


def test_wish_of_the_host(native):
    """To use one core only: new connections come there, wherever their packets arrive."""
    native.type("wish 2")
    load = subprocess.Popen([*native.inside, "/usr/bin/python3", LOAD, SERVER, "40", "2000"],
                            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    with load:
        assert load.stdout.readline() == "open\n" and load.stdout.readline() == "echoed\n"
        assert [core["connections"] for core in nic(native)["cores"].values()] == [0, 0, 40, 0]
        load.stdin.close()


def test_bulk(native):
    """Frames of all sizes cross cores; what too many of them lose is sent again."""
    echo(native, 8, 3_000_000)
    assert native.iperf3("-t", "1", "-P", "8")["end"]["sum_received"]["bytes"] > 1_000_000


@pytest.mark.parametrize("size", [10, 1473, 9000, 60000])
def test_datagrams(native, size):
    """Fragments arrive by their addresses, the datagram goes where its ports lead."""
    for number in range(40):
        with native.enter(lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM)) as sock:
            sock.settimeout(10)
            sock.connect((SERVER, 7))
            data = random.Random(number).randbytes(size)
            sock.send(data)
            assert sock.recv(65536) == data
    if size > 1472:
        assert nic(native)["handed_over"] > 0


def test_nic_goes(native):
    """With connections on all cores, and packets between them."""
    load = subprocess.Popen([*native.inside, "/usr/bin/python3", LOAD, SERVER, "40", "30000000"],
                            stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                            stderr=subprocess.DEVNULL, text=True)
    assert load.stdout.readline() == "open\n"
    time.sleep(0.3)
    native.type("remove 0")
    end = time.monotonic() + 30
    while native.stats()["echo"]["connections"]:
        assert time.monotonic() < end
        time.sleep(0.1)
    load.kill()
    load.communicate()


# ---- Packets by hand ----


def maximum_segment(native, mtus):
    """What the server's segments to us are at most, after it was told of these MTUs on the way."""
    raw = raw_socket(native)
    with native.connect(7) as sock:
        sock.sendall(b"a")
        assert sock.recv(1) == b"a"
        port = sock.getsockname()[1]
        sent = None
        raw.settimeout(5)
        sock.sendall(bytes(100))
        while sent is None:  # the message carries the header of its next segment
            packet = raw.recv(65536)[14:]
            if packet[9] == 6 and packet[12:16] == socket.inet_aton(SERVER) and \
                    struct.unpack("!HH", packet[20:24]) == (7, port) and len(packet) > 100:
                following = (struct.unpack("!I", packet[24:28])[0] + 100) % 2**32
                sent = packet[:24] + struct.pack("!I", following)
        for mtu in mtus:
            raw.send(frame(ip4(1, icmp(3, 4, struct.pack("!HH", 0, mtu), sent), source="10.77.0.9")))
        time.sleep(0.2)
        sock.sendall(bytes(4000))
        left = 4100
        while left:
            left -= len(sock.recv(left))
        largest = 0
        raw.setblocking(False)
        try:
            while True:
                packet = raw.recv(65536)[14:]
                if packet[12:16] == socket.inet_aton(SERVER) and packet[9] == 6:
                    largest = max(largest, len(packet))
        except BlockingIOError:
            pass
    raw.close()
    return largest


def test_fragmentation_needed():
    """Sent segments become smaller, on whatever core their connection is; but not absurdly so."""
    native = Native("--cores", CORES)
    for _ in range(6):  # connections on several cores
        assert maximum_segment(native, []) > 1400
        assert maximum_segment(native, [1000]) <= 1000
        assert maximum_segment(native, [68, 0]) == 552
    native.close()


def test_not_our_segment():
    """A message about what we never sent changes nothing."""
    native = Native("--cores", CORES)
    raw = raw_socket(native)
    with native.connect(7) as sock:
        port = sock.getsockname()[1]
        for sequence in random.Random(1).sample(range(2**32), 2000):
            about = ip4(6, struct.pack("!HHI", 7, port, sequence), SERVER, HERE)
            raw.send(frame(ip4(1, icmp(3, 4, struct.pack("!HH", 0, 600), about))))
        time.sleep(0.5)
    raw.close()
    assert maximum_segment(native, []) > 1400
    native.close()


def nonsense(r):
    """An IPv4 packet that is wrong in some way, and sometimes right."""
    def inner():
        return ip4(r.choice([1, 6, 17, 99]), r.randbytes(r.choice([0, 4, 7, 8, 20])),
                   r.choice([SERVER, HERE, "0.0.0.0"]), r.choice([HERE, SERVER]),
                   fragment=r.choice([0, 0, 1, 0x2000]))
    kind = r.randrange(5)
    source = r.choice([HERE, "10.77.0.9", "255.255.255.255", "224.0.0.1", SERVER])
    target = r.choice([SERVER, SERVER, SERVER, "10.77.0.255", "255.255.255.255", "224.0.0.1", HERE])
    if kind == 0:
        packet = ip4(1, icmp(r.choice([3, 11, 12, 0, 5]), r.randrange(6), r.randbytes(4),
                             inner()[:r.randrange(40)]), source, target)
    elif kind == 1:  # fragments, mostly overlapping
        packet = ip4(r.choice([1, 6, 17]), r.randbytes(8 * r.randrange(180)), source, target,
                     number=r.randrange(4), fragment=r.choice([0, 0x2000]) | r.randrange(1 << r.randrange(14)))
    elif kind == 2:
        packet = ip4(r.choice([6, 17]), struct.pack("!HH", r.randrange(65536), r.choice([7, 9, 68, 5201])) +
                     r.randbytes(r.randrange(60)), source, target)
    else:
        packet = ip4(r.choice([1, 6, 17]), r.randbytes(r.randrange(60)), source, target)
    packet = bytearray(packet)
    for _ in range(r.choice([0, 0, 1, 2])):
        packet[r.randrange(20)] = r.randrange(256)
    if r.randrange(2):  # right again, but for what it says
        packet[10:12] = bytes(2)
        packet[10:12] = struct.pack("!H", checksum(bytes(packet[:20])))
    return bytes(packet[:r.choice([len(packet)] * 4 + [r.randrange(len(packet))])])


def test_nonsense(native):
    """Nothing crashes, nothing stays, and the next client is served."""
    r = random.Random(1)
    echo(native, 1, 1)  # what is taken once and kept
    before = native.objects() + 1  # and a timer
    raw = raw_socket(native)
    for number in range(4000):
        raw.send(frame(nonsense(r)))
        if number % 50 == 0:
            time.sleep(0.01)
    raw.close()
    echo(native, 10, 10_000)
    native.wait_objects(before, 40)
