# SPDX-License-Identifier: BSD-2-Clause
"""Eight NICs of the network stack, built for Linux with sanitizers: each with its own addresses, way
and MTU; what came in on one leaves by it; one that goes takes only its own connections along."""

import contextlib
import os
import re
import socket
import struct
import subprocess
import time

import pytest

from hvlib.tapnet import enter
import packets
from icmp import check_ping
from packets import checksum, ip4, raw_socket
from program import HERE, Native, build, run
from support import wait_for

NICS = 8
TWIN = "10.99.0.2"  # the address of both of the last two, which are on networks of their own
ECHO = 7


def mac(number):
    return bytes([2, 0, 0, 0x5e, 0, 2 + number])


class Far:
    """A network namespace with one end of the program's cables."""

    def __init__(self, native, tap, address):
        self.name = f"{native.namespace}-{tap}"
        run("ip", "netns", "add", self.name)
        run("ip", "-n", native.namespace, "link", "set", tap, "netns", self.name)
        run("ip", "-n", self.name, "addr", "add", address, "dev", tap)
        run("ip", "-n", self.name, "link", "set", tap, "up")

    def enter(self, make):
        return enter(self.name, make)

    def close(self):
        run("ip", "netns", "del", self.name)


@pytest.fixture(scope="module")
def native():
    build()
    options = []
    for number in range(1, NICS):
        address = f"{TWIN}/24" if number >= NICS - 2 else f"10.77.{number}.2/24"
        metric = 1 if number == 4 else 5
        options += ["--nic", f"{number},address={address},gateway=10.77.{number}.1,metric={metric}"]
    options[-1] += ",address6=2001:db8:7::2,gateway6=2001:db8:7::1"
    options[-3] += ",address6=2001:db8:6::2,gateway6=2001:db8:6::1"
    options += ["--nic", "0,metric=9"]
    program = Native(*options, "--cores", 2, "--offload", taps=NICS)
    for number in range(NICS):
        program.wait_log(rf"net: nic{number}: address ".encode())
    yield program
    program.close()


@pytest.fixture(scope="module")
def twins(native):
    """Two networks with the same addresses on them."""
    ends = [Far(native, f"tap{number}", "10.99.0.1/24") for number in (NICS - 2, NICS - 1)]
    yield ends
    for end in ends:
        end.close()


def client(address, port=0):
    sock = socket.socket()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    sock.bind(("", port))
    sock.settimeout(10)
    sock.connect((address, ECHO))
    return sock


def check(sock, text=b"there and back"):
    sock.sendall(text)
    back = b""
    while len(back) < len(text):
        part = sock.recv(65536)
        assert part, "closed"
        back += part
    assert back == text


def raw(native, tap, ethertype):
    def make():
        sock = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ethertype))
        sock.bind((tap, 0))
        sock.settimeout(10)
        return sock
    return native.enter(make)


def nic(native, number):
    return native.stats()["net"][f"nic{number}"]


def test_each_serves(native):
    for number in range(NICS - 2):
        before = nic(native, number)["tx_frames"]
        with native.enter(lambda n=number: client(f"10.77.{n}.2")) as sock:
            check(sock, os.urandom(20000))
        assert nic(native, number)["tx_frames"] > before
    done = native.iperf3("-t", "1", "-P", "2")
    assert done["end"]["sum_received"]["bytes"] > 0


def test_not_for_this_nic(native):
    """What is for the address of another NIC is dropped, whatever it is, and counted."""
    echo = struct.pack("!BBHHH", 8, 0, 0, 1, 1)
    echo = echo[:2] + struct.pack("!H", checksum(echo)) + echo[4:]
    syn = struct.pack("!HHIIBBHHH", 40000, ECHO, 1, 0, 5 << 4, 2, 8192, 0, 0)
    before = nic(native, 0)["rx_not_mine"]
    with raw(native, "tap0", 0x800) as sock, raw(native, "tap3", 0x800) as other:
        for packet in (ip4(1, echo, "10.77.0.1", "10.77.3.2"), ip4(6, syn, "10.77.3.1", "10.77.3.2"),
                       ip4(1, echo, "10.77.3.1", "10.77.3.255"), ip4(17, syn, "10.77.0.1", "10.77.3.2")):
            sock.send(mac(0) + bytes(6) + b"\x08\x00" + packet)
        wait_for(lambda: nic(native, 0)["rx_not_mine"] == before + 4, 15, "four packets dropped")
        for end in (sock, other):
            end.setblocking(False)
            with contextlib.suppress(BlockingIOError):
                while True:
                    assert end.recv(2048)[26:30] != socket.inet_aton("10.77.3.2"), "an answer"


def test_not_for_this_nic6(native):
    text = struct.pack("!BBHHH", 128, 0, 0, 1, 1)
    source, target = (socket.inet_pton(socket.AF_INET6, a) for a in ("2001:db8:6::1", "2001:db8:6::2"))
    total = checksum(source + target + struct.pack("!II", len(text), 58) + text)
    packet = (struct.pack("!IHBB", 6 << 28, len(text), 58, 64) + source + target + text[:2] +
              struct.pack("!H", total) + text[4:])
    native.wait_log(rb"nic6: address 2001:db8:6::2")
    before, replies = nic(native, 0)["rx_not_mine"], native.stats()["ip6"]["out"]
    with raw(native, "tap0", 0x86dd) as sock:
        for _ in range(20):
            sock.send(mac(0) + bytes(6) + b"\x86\xdd" + packet)
    wait_for(lambda: nic(native, 0)["rx_not_mine"] == before + 20, 15, "the packets are dropped")
    assert native.stats()["ip6"]["out"] < replies + 20


def test_arp_only_for_its_own(native):
    def question(address):
        return (b"\xff" * 6 + bytes(6) + b"\x08\x06" + struct.pack("!HHBBH", 1, 0x800, 6, 4, 1) +
                bytes([2, 9, 9, 9, 9, 9]) + socket.inet_aton("10.77.0.77") + bytes(6) +
                socket.inet_aton(address))
    with raw(native, "tap0", 0x806) as sock:
        sock.send(question("10.77.3.2"))
        sock.send(question("10.77.0.2"))
        while True:
            frame = sock.recv(2048)
            if frame[6:12] == mac(0) and frame[20:22] == b"\0\2":
                break
    assert frame[28:32] == socket.inet_aton("10.77.0.2")  # the first answer is the second's


def first_syn(socks, timeout=10):
    """From which of these a TCP segment to port 9999 comes first."""
    end = time.monotonic() + timeout
    while time.monotonic() < end:
        for number, sock in socks.items():
            with contextlib.suppress(BlockingIOError):
                frame = sock.recv(2048)
                if frame[23] == 6 and frame[36:38] == struct.pack("!H", 9999):
                    return number, socket.inet_ntoa(frame[26:30])
        time.sleep(0.01)
    raise AssertionError("no connection was tried")


@pytest.mark.parametrize("target, down, expected", [
    ("10.77.2.77", [], 2),  # it is there on the link
    ("192.0.2.1", [], 4),  # the least metric
    ("192.0.2.2", [4], 1),  # of the same metric the lowest number
], ids=["link", "metric", "number"])
def test_way_out(native, target, down, expected):
    run("ip", "-n", native.namespace, "addr", "add", f"{target}/32", "dev", "tap2")  # it refuses
    socks = {number: raw(native, f"tap{number}", 0x800) for number in range(6)}
    for sock in socks.values():
        sock.setblocking(False)
    for number in down:
        native.type(f"down {number}")
    try:
        start = len(native.log)
        native.type(f"connect {target} 9999")
        assert first_syn(socks) == (expected, f"10.77.{expected}.2")
        native.wait_log(rb"core 0: refused(?s:.)*core 1: refused|core 1: refused(?s:.)*core 0: refused",
                        start=start)
    finally:
        for sock in socks.values():
            sock.close()
        for number in down:
            native.type(f"up {number}")


def test_one_peer_behind_two_routers(native, twins):
    """Each answer by the router of the NIC on which the question came."""
    peer = "2001:db8:88::1"
    for number, end in zip((6, 7), twins):
        run("ip", "-n", end.name, "addr", "add", f"2001:db8:{number}::1/64", "dev", f"tap{number}", "nodad")
        run("ip", "-n", end.name, "addr", "add", f"{peer}/128", "dev", f"tap{number}", "nodad")
        native.wait_log(rf"nic{number}: address 2001:db8:{number}::2".encode())
    for _ in range(3):
        for number, end in zip((6, 7), twins):
            check_ping(end, f"2001:db8:{number}::2", 2, source=peer)


def test_twins(native, twins):
    """Two NICs with one address, clients with one address, even one port: four connections that have
    nothing to do with each other. When one NIC goes, those of the other stay."""
    here, there = ([end.enter(lambda p=p: client(TWIN, p)) for p in (40000, 40001)] for end in twins)
    for sock in here + there:
        check(sock, os.urandom(100000))
    objects, aborted = native.objects(), native.stats()["echo"]["aborted"]
    native.type(f"remove {NICS - 1}")
    wait_for(lambda: f"nic{NICS - 1}" not in native.stats()["net"], 15, "the NIC goes")
    for sock in here:
        check(sock, os.urandom(100000))
    there[0].settimeout(0.3)
    with pytest.raises(TimeoutError):
        check(there[0])
    wait_for(lambda: native.stats()["echo"]["connections"] == 2, 15, "the service is told")
    assert native.stats()["echo"]["aborted"] == aborted + 2  # ERR_ABRT, not what a peer's reset is called
    here[0].setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))  # resets it
    for sock in here + there:
        sock.close()
    native.wait_objects(objects, 20)
    assert native.stats()["echo"]["aborted"] == aborted + 2


def test_short_flap(native):
    """Connections survive it, and neighbours are told that we are there again."""
    with native.enter(lambda: client("10.77.5.2")) as sock, raw(native, "tap5", 0x806) as arp:
        check(sock, os.urandom(30000))
        native.type("down 5")
        native.wait_log(rb"nic5: link down")
        sock.sendall(b"into the void")
        time.sleep(0.5)
        start = len(native.log)
        native.type("up 5")
        native.wait_log(rb"nic5: link up", start=start)
        while True:  # an announcement: its own address, twice
            frame = arp.recv(2048)
            if frame[6:12] == mac(5) and frame[28:32] == frame[38:42] == socket.inet_aton("10.77.5.2"):
                break
        back = b""
        while len(back) < len(b"into the void"):
            back += sock.recv(100)
        assert back == b"into the void"
        check(sock, os.urandom(30000))


def test_two_on_one_link():
    """As two NICs at one switch: each answers for its own address with its own MAC address, in ARP and in
    all that follows; the way out is that of the least metric."""
    native = Native("--nic", "0,address=10.80.0.2/24,metric=2", "--nic", "1,address=10.80.0.3/24,metric=1",
                    "--cores", 2, taps=2, address=False)
    ip = ["ip", "-n", native.namespace]
    try:
        run(*ip, "link", "add", "switch", "type", "bridge")
        for tap in ("tap0", "tap1"):
            run(*ip, "link", "set", tap, "master", "switch")
        run(*ip, "addr", "add", "10.80.0.1/24", "dev", "switch")
        run(*ip, "link", "set", "switch", "up")
        for number in (0, 1):
            native.wait_log(rf"net: nic{number}: address 10.80.0.{2 + number}/24".encode())
        socks = [native.enter(lambda n=n: client(f"10.80.0.{2 + n}")) for n in (0, 1) for _ in range(4)]
        before = [nic(native, number)["tx_bytes"] for number in (0, 1)]
        for sock in socks[:4]:
            check(sock, os.urandom(50000))
        after = [nic(native, number)["tx_bytes"] for number in (0, 1)]
        assert after[0] - before[0] > 200000 > 20000 > after[1] - before[1]
        for sock in socks:
            check(sock)
        known = subprocess.run([*ip, "neigh", "show"], text=True, check=True, stdout=subprocess.PIPE).stdout
        for number in (0, 1):
            assert re.search(rf"10\.80\.0\.{2 + number} .*lladdr {mac(number).hex(':')} ", known), known
        start = len(native.log)
        server = native.enter(lambda: socket.create_server(("10.80.0.1", 9999)))
        native.type("connect 10.80.0.1 9999")
        for _ in range(2):
            server.settimeout(10)
            _, (peer, _) = server.accept()
            assert peer == "10.80.0.3"
        native.wait_log(rb"core [01]: connected(?s:.)*core [01]: connected", start=start)
        server.close()
        for sock in socks:
            sock.close()
    finally:
        native.close()


def test_fragments_while_a_nic_goes():
    """What waits for its other fragments holds nothing of a NIC, and another NIC's end is nothing to it."""
    def datagram(number, text):
        whole = struct.pack("!HHHH", 30000, ECHO, 8 + len(text), 0) + text
        return [packets.frame(ip4(17, whole[:800], number=number, fragment=0x2000)),
                packets.frame(ip4(17, whole[800:], number=number, fragment=100))]

    def listen():
        sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        sock.bind((HERE, 30000))
        sock.settimeout(5)
        return sock
    build()
    program = Native("--cores", 2, "--nic", "1,address=10.77.1.2/24", taps=2)
    try:
        with raw_socket(program) as raw, program.enter(listen) as answers:
            text = os.urandom(1200)
            first, second = datagram(1, text)
            for number, sent in (1, first), (0, datagram(2, text)[0]):
                raw.send(sent)
                for _ in range(4):  # turns of the program, so that it has been taken
                    program.stats()
                program.type(f"remove {number}")
                program.stats()
                if number:
                    raw.send(second)
                    assert answers.recv(2000) == text
        program.read()
        assert b"in use" not in program.log
    finally:
        program.close()


def test_address_of_all_is_for_one():
    """[net]'s address goes to the first NIC that comes while no other has it; others ask DHCP."""
    native = Native("--cores", 2, taps=2)
    try:
        objects = native.objects()
        native.type("report")
        native.wait_log(rb"report: nic0 up static mtu 1500 address 10.77.0.2 ")
        native.wait_log(rb"report: nic1 up dhcp mtu 1500 address 0.0.0.0 ")
        for gone, back in (([0], 0), ([0, 1], 1)):
            start = len(native.log)
            for number in gone:
                native.type(f"remove {number}")
            native.type(f"add {back}")
            native.wait_log(rf"net: nic{back}: address 10.77.0.2/24".encode(), start=start)
        native.type("remove 1")
        native.wait_objects(objects, 20)
    finally:
        native.close()


def test_address_of_all_given_by_the_host():
    """Who has [net]'s address keeps it from others, also if the host gave it that again."""
    native = Native("--cores", 2, "--address6", "2001:db8:77::2/64", taps=2)
    try:
        for given, other in (("10.77.0.2/24", b"dhcp"), ("10.77.0.9/24 2001:db8:77::2", b"dhcp"),
                             ("10.77.0.9/24", b"static")):
            native.type("remove 1")
            start = len(native.log)
            native.type(f"configure 0 {given}")
            native.wait_log(rb"configured: 0\n", start=start)
            native.type("add 1")
            native.type("report")
            said = native.wait_log(rb"report: nic1 up (\w+) ", start=start)[1]
            assert said == other, given
    finally:
        native.close()
