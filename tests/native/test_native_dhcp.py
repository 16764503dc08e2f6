# SPDX-License-Identifier: BSD-2-Clause
"""Addresses that change while the network stack runs, built for Linux with sanitizers: what a DHCP server
says, what the host asks for, and cables that lead to another network than before."""

import contextlib
import os
import re
import socket
import struct
import subprocess
import threading
import time

import pytest

from packets import checksum
from program import HERE, Native, build, run

MAC = bytes([2, 0, 0, 0x5e, 0, 2])
ECHO = 7


class Server:
    """dnsmasq in the program's namespace."""

    def __init__(self, native, *options, network="10.77.0", folder):
        self.path = folder / f"dnsmasq-{time.monotonic_ns()}.log"
        with open(self.path, "wb") as log:
            self.process = subprocess.Popen(
                [*native.inside, "dnsmasq", "--no-daemon", "--conf-file=/dev/null", "--port=0",
                 "--user=root", "--pid-file", "--no-ping", "--dhcp-authoritative", "--log-dhcp",
                 "--bind-interfaces", "--interface=tap0", f"--dhcp-leasefile={folder}/leases",
                 f"--dhcp-range={network}.100,{network}.199,1h", *options],
                stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT)
        self.wait("DHCP, IP range")

    def count(self, word):
        return self.path.read_text(errors="replace").count(word)

    def wait(self, word, count=1, timeout=15):
        end = time.monotonic() + timeout
        while self.count(word) < count:
            assert time.monotonic() < end, f"no {word}: {self.path.read_text(errors='replace')}"
            time.sleep(0.05)

    def close(self):
        self.process.kill()
        self.process.wait()


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("dhcp")


@pytest.fixture(scope="module", autouse=True)
def built():
    build()


@pytest.fixture
def native():
    program = Native("--cores", 2, address=False)
    yield program
    program.close()


def lease(native, start=0, timeout=20):
    return native.wait_log(rb"net: nic0: address ([\d.]+)/24", timeout, start)[1].decode()


def client(native, address):
    return native.enter(lambda: socket.create_connection((address, ECHO), timeout=15))


def check(sock, size=20000):
    data, back = os.urandom(size), b""
    sock.sendall(data)
    while len(back) < size:
        part = sock.recv(65536)
        assert part, "closed"
        back += part
    assert data == back


def flap(native):
    start = len(native.log)
    native.type("down 0")
    native.wait_log(rb"nic0: link down", start=start)
    native.type("up 0")
    native.wait_log(rb"nic0: link up", start=start)
    return start


def segments(native):
    """How long the segments are that a new connection may send to the guest."""
    with client(native, "10.77.0.100" if native is None else lease(native)) as sock:
        return sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG)


def longest_frame(native, address, act):
    """The longest frame from the guest while act() runs."""
    def sniff():
        sock = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(0x800))
        sock.bind(("tap0", 0))
        sock.setblocking(False)
        return sock
    longest = 0
    with native.enter(sniff) as sock:
        act()
        while True:
            try:
                frame = sock.recv(65536)
            except BlockingIOError:
                return longest
            if frame[26:30] == socket.inet_aton(address):
                longest = max(longest, len(frame))


def test_mtu_and_dns(native, folder):
    """Option 26 is obeyed by what is sent and by what is asked for, also by connections that there are
    when it comes; option 6 is remembered."""
    server = Server(native, "--dhcp-option=6,10.77.0.53,192.0.2.53", folder=folder)
    try:
        address = lease(native)
        assert segments(native) == 1500 - 40 - 12
        sock = client(native, address)
        assert longest_frame(native, address, lambda: check(sock)) == 1514
        server.close()
        server = Server(native, "--dhcp-option=26,1100", "--dhcp-option=6,10.77.0.54", folder=folder)
        start = flap(native)
        native.wait_log(rb"net: nic0: MTU 1100\n", start=start)
        check(sock)  # what the peer had not acknowledged goes out as it was
        assert longest_frame(native, address, lambda: check(sock)) == 1114
        assert segments(native) == 1100 - 40 - 12
        assert native.report().startswith(f"up dhcp mtu 1100 address {address} gateway 10.77.0.1 ")
        assert native.report().endswith(" dns 10.77.0.54")
        done = subprocess.run([*native.inside, "ping", "-c", "2", "-i", "0.2", "-s", "3000", address],
                              stdout=subprocess.DEVNULL, check=False)
        assert done.returncode == 0
        assert longest_frame(native, address, lambda: subprocess.run(
            [*native.inside, "ping", "-c", "1", "-s", "3000", address], stdout=subprocess.DEVNULL,
            check=True)) <= 1114
        sock.close()
    finally:
        server.close()


@pytest.mark.parametrize("options", [
    ["--offload"], ["--offload", "--no-large-send"], ["--offload", "--no-large-send", "--faults", "2"], []],
    ids=["large-send", "checksums", "faults", "plain"])
def test_mtu_while_data_waits(folder, options):
    """lwIP has segments that are longer than the link takes now: they are cut, also those that the NIC
    still holds when the MTU changes. None goes as fragments, of which no NIC fills in the checksum."""
    def sniff():
        sock = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(0x800))
        sock.bind(("tap0", 0))
        sock.settimeout(0.5)
        return sock

    def fragments(sock):
        count = 0
        with contextlib.suppress(TimeoutError):
            while True:
                frame = sock.recv(65536)
                count += frame[26:30] == socket.inet_aton(address) and (frame[20] & 0x3f or frame[21]) != 0
        return count
    native = Native("--cores", 2, *options, address=False)
    server = Server(native, folder=folder)
    try:
        address = lease(native)
        sock, data = client(native, address), os.urandom(120_000)
        check(sock, 100)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 10_000)
        sender = threading.Thread(target=sock.sendall, args=(data,))
        sender.start()
        sender.join(1)  # its echo fills the window and waits
        server.close()
        server = Server(native, "--dhcp-option=26,1100", folder=folder)
        native.type("revalidate 7200")
        native.wait_log(rb"net: nic0: MTU 1100\n")
        with native.enter(sniff) as raw:
            back = b""
            while len(back) < len(data):
                back += sock.recv(65536)
            assert back == data
            sender.join()
            check(sock)
            assert fragments(raw) == 0
        sock.close()
    finally:
        server.close()
        native.close()


def test_mtu_beyond(native, folder):
    server = Server(native, "--dhcp-option=26,9000", folder=folder)
    try:
        lease(native)
        native.wait_log(rb"nic0: DHCP says MTU 9000, dunlin.conf and the host say 1500\n")
        assert segments(native) == 1500 - 40 - 12
    finally:
        server.close()


def test_flap_asks_again(native, folder):
    """The same network: the lease is confirmed (INIT-REBOOT) and connections go on. Without a server they
    do, too. Another network: the address goes, and what used it."""
    server = Server(native, folder=folder)
    try:
        address = lease(native)
        sock = client(native, address)
        check(sock)
        for act in (lambda: flap(native), lambda: native.type("revalidate 7200")):
            acknowledged, discovered = server.count("DHCPACK"), server.count("DHCPDISCOVER")
            act()
            server.wait("DHCPACK", acknowledged + 1)
            assert server.count("DHCPDISCOVER") == discovered
            check(sock)
        server.close()
        flap(native)
        check(sock)
        run("ip", "-n", native.namespace, "addr", "add", "10.78.0.1/24", "dev", "tap0")
        run("ip", "-n", native.namespace, "addr", "del", f"{HERE}/24", "dev", "tap0")
        server = Server(native, network="10.78.0", folder=folder)
        start = flap(native)
        assert lease(native, start).startswith("10.78.0.")
        server.wait("DHCPNAK")
        with client(native, lease(native, start)) as other:
            check(other)
        start = time.monotonic()
        while native.stats()["echo"]["connections"]:
            assert time.monotonic() < start + 15
            time.sleep(0.1)
        sock.close()
    finally:
        server.close()


def test_configured_by_the_host(native, folder):
    server = Server(native, folder=folder)
    try:
        address = lease(native)
        sock = client(native, address)
        check(sock)
        start = len(native.log)
        for bad in ("10.77.0.9/31", "224.0.0.1/24", "127.0.0.2/24", "10.77.0.0/24", "10.77.0.255/24",
                    "10.77.0.9/24 ff02::1", "10.77.0.9/24 fe80::1"):
            native.type(f"configure 0 {bad}")
            native.wait_log(rb"configured: -22\n", start=start)
            start = len(native.log)
        native.type("configure 5 dhcp")
        native.wait_log(rb"configured: -19\n", start=start)
        check(sock)
        native.type("configure 0 10.77.0.9/24 2001:db8:77::9 2001:db8:77::a")
        native.wait_log(rb"configured: 0\n", start=start)
        server.wait("DHCPRELEASE")
        with pytest.raises(ConnectionResetError):
            check(sock)
        run("ip", "-n", native.namespace, "addr", "add", "2001:db8:77::1/64", "dev", "tap0", "nodad")
        native.wait_log(rb"address 2001:db8:77::a\n")
        for target in ("10.77.0.9", "2001:db8:77::9", "2001:db8:77::a"):
            for _ in range(4):  # on one core and the other
                with client(native, target) as other:
                    check(other)
        assert re.match(r"up static mtu 1500 address 10\.77\.0\.9 gateway 0\.0\.0\.0 .*2001:db8:77::9 "
                        r"2001:db8:77::a gateway6 :: dns$", native.report())
        start = len(native.log)
        native.type("configure 0 dhcp 2001:db8:77::a")
        assert lease(native, start) == address
        with client(native, address) as other:
            check(other)
        assert "2001:db8:77::9 " not in native.report()
    finally:
        server.close()


def test_address6_taken_meanwhile():
    """After the cable was out we ask whether our address is still ours; who then has it keeps it."""
    def advertisement():
        us, target = socket.inet_pton(socket.AF_INET6, "fe80::5"), guest
        text = struct.pack("!BBHI", 136, 0, 0, 0x20 << 24) + target + b"\2\1" + bytes([2, 9, 9, 9, 9, 9])
        to = socket.inet_pton(socket.AF_INET6, "ff02::1")
        total = checksum(us + to + struct.pack("!II", len(text), 58) + text)
        text = text[:2] + struct.pack("!H", total) + text[4:]
        return (b"\x33\x33\0\0\0\1" + bytes([2, 9, 9, 9, 9, 9]) + b"\x86\xdd" +
                struct.pack("!IHBB", 6 << 28, len(text), 58, 255) + us + to + text)

    def sniff():
        sock = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(0x86dd))
        sock.bind(("tap0", 0))
        sock.settimeout(10)
        return sock
    guest = socket.inet_pton(socket.AF_INET6, "2001:db8:77::2")
    native = Native("--cores", 2, "--address6", "2001:db8:77::2/64")
    try:
        native.wait_log(rb"ready: iperf3 on 2001:db8:77::2 port 5201\n")
        with native.enter(sniff) as sock:
            sock.send(advertisement())  # nobody asked
            flap(native)
            while True:
                frame = sock.recv(2048)
                if frame[6:12] == MAC and frame[54] == 135 and frame[22:38] == bytes(16) and \
                        frame[62:78] == guest:
                    break
            assert "2001:db8:77::2" in native.report()
            sock.send(advertisement())
            native.wait_log(rb"address 2001:db8:77::2 not used: another host has it\n")
            assert "2001:db8:77::2" not in native.report()
    finally:
        native.close()


def serve(native, sock, options, offered="10.77.0.60"):
    """Answers a question of the program as a DHCP server that says these options, too."""
    while True:
        frame = sock.recv(2048)
        if frame[6:12] == MAC and frame[23] == 17 and frame[36:38] == struct.pack("!H", 67):
            break
    question = frame[42:]
    kind = question[question.index(b"\x35\x01", 236) + 2]
    text = (b"\x02\x01\x06\0" + question[4:8] + bytes(8) + socket.inet_aton(offered) + bytes(8) +
            question[28:44] + bytes(192) + b"\x63\x82\x53\x63\x35\x01" +
            bytes([{1: 2, 3: 5}[kind]]) + b"\x36\x04" + socket.inet_aton(HERE) +
            b"\x33\x04\0\0\x0e\x10\x01\x04\xff\xff\xff\0" + options + b"\xff")
    datagram = struct.pack("!HHHH", 67, 68, 8 + len(text), 0) + text
    header = struct.pack("!BBHHHBBH4s4s", 0x45, 0, 20 + len(datagram), 1, 0, 64, 17, 0,
                         socket.inet_aton(HERE), socket.inet_aton(offered))
    header = header[:10] + struct.pack("!H", checksum(header)) + header[12:]
    sock.send(MAC + bytes([2, 9, 9, 9, 9, 9]) + b"\x08\x00" + header + datagram)
    return kind


@pytest.mark.parametrize("options, mtu, dns", [
    (b"\x1a\x01\x05\x06\x03\x0a\x4d\x00", 1500, ""),
    (b"\x1a\x02\x00\x44\x06\x00", 1500, ""),
    (b"\x1a\x02\x02\x3f\x06\x05\x01\x02\x03\x04\x05", 1500, " 1.2.3.4"),
    (b"\x1a\x02\x02\x40\x06\x10" + bytes(range(1, 17)), 576, " 1.2.3.4 5.6.7.8 9.10.11.12"),
    (b"\x1a\x04\x05\xdc\x05\xdc\x1a\x02\x04\xb0", 1200, ""),
    (b"\x06\x08\x01\x02\x03\x04\x1a\x02\x04\xb0", 1500, " 1.2.3.4 26.2.4.176"),
    (b"\x06\xff\x01\x02", 1500, None),
], ids=["short", "tiny", "least-but-one", "least", "twice", "one-in-the-other", "beyond-the-end"])
def test_nonsense_from_a_server(native, options, mtu, dns):
    def sniff():
        sock = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(0x800))
        sock.bind(("tap0", 0))
        sock.settimeout(10)
        return sock
    with native.enter(sniff) as sock:
        native.type("revalidate 0")  # the first question may have been before we listened
        if dns is None:  # such an answer is none
            assert serve(native, sock, options) == serve(native, sock, options) == 1
            return
        sock.settimeout(1)
        end = time.monotonic() + 20
        while b"address 10.77.0.60/24" not in native.log:
            assert time.monotonic() < end
            with contextlib.suppress(TimeoutError):
                serve(native, sock, options)
            native.read()
        assert native.report().endswith(f" dns{dns}")
        assert native.report().startswith(f"up dhcp mtu {mtu} ")
