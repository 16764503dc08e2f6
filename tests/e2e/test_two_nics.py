# SPDX-License-Identifier: BSD-2-Clause
"""Two NICs: the first on a socket, with the address of dunlin.conf, where this file is the only
neighbour and speaks raw Ethernet; the second on the user network, with DHCP."""

import os
import socket
import struct
import time

import pytest

from dunlin import address, check_iperf
from hvlib.vm import Forward
from support import free_port

GUEST, HERE = "192.168.77.2", "192.168.77.1"
GUEST6, HERE6 = "fd77:7::2", "fd77:7::1"
GUEST_MAC, HERE_MAC = bytes.fromhex("00155d444c00"), bytes.fromhex("020000000001")
CONFIG = f"""[net]
address = {GUEST}/24
address6 = {GUEST6}/64
mtu = 1300
[services]
echo = on
[log]
level = debug
"""
ARP_REQUEST = (b"\xff" * 6 + HERE_MAC + b"\x08\x06" +
               struct.pack("!HHBBH6s4s6s4s", 1, 0x800, 6, 4, 1, HERE_MAC, socket.inet_aton(HERE),
                           bytes(6), socket.inet_aton(GUEST)))


def checksum(data):
    data += bytes(len(data) % 2)
    total = sum(struct.unpack(f"!{len(data) // 2}H", data))
    total = (total & 0xffff) + (total >> 16)
    return ~(total + (total >> 16)) & 0xffff


def ipv4(protocol, payload):
    header = struct.pack("!BBHHHBBH4s4s", 0x45, 0, 20 + len(payload), 1, 0, 64, protocol, 0,
                         socket.inet_aton(HERE), socket.inet_aton(GUEST))
    header = header[:10] + struct.pack("!H", checksum(header)) + header[12:]
    return GUEST_MAC + HERE_MAC + b"\x08\x00" + header + payload


def pseudo_header(source, target, segment, protocol=6):
    return (socket.inet_aton(source) + socket.inet_aton(target) +
            struct.pack("!HH", protocol, len(segment)))


def pseudo_header6(source, target, protocol, segment):
    return (socket.inet_pton(socket.AF_INET6, source) + socket.inet_pton(socket.AF_INET6, target) +
            struct.pack("!II", len(segment), protocol))


def ipv6(protocol, segment, checksum_at, source=HERE6, target=GUEST6):
    """A frame with the checksum filled in."""
    total = checksum(pseudo_header6(source, target, protocol, segment) + segment)
    segment = segment[:checksum_at] + struct.pack("!H", total) + segment[checksum_at + 2:]
    return (GUEST_MAC + HERE_MAC + b"\x86\xdd" + struct.pack("!IHBB", 6 << 28, len(segment), protocol, 255) +
            pseudo_header6(source, target, 0, b"")[:32] + segment)


class Cable:
    """The other end of QEMU's -netdev socket: each frame after its length."""

    def __init__(self, port):
        self.sock = socket.create_connection(("127.0.0.1", port), timeout=30)
        self.file = self.sock.makefile("rb")

    def send(self, frame):
        self.sock.sendall(struct.pack("!I", len(frame)) + frame)

    def receive(self, wanted, timeout=30):
        """The next frame for which wanted(frame) is true."""
        deadline = time.monotonic() + timeout
        while time.monotonic() < deadline:
            frame = self.file.read(struct.unpack("!I", self.file.read(4))[0])
            if wanted(frame):
                return frame
        raise AssertionError(f"no such frame in {timeout} s")

    def close(self):
        self.file.close()
        self.sock.close()


@pytest.fixture(scope="module")
def port():
    return free_port()


@pytest.fixture(scope="module")
def vm(module_boot, port, tmp_path_factory):
    config = tmp_path_factory.mktemp("two-nics") / "dunlin.conf"
    config.write_text(CONFIG)
    outside = free_port()
    vm = module_boot.dunlin(vcpus=1, config=config, forwards=[Forward(outside, 5201)],
                            nics=[f"socket:listen=127.0.0.1:{port}", "user"])
    vm.port = outside
    vm.wait_console(r"net: nic1: address 10\.0\.3\.15/24", 60)
    return vm


@pytest.fixture(scope="module")
def cable(vm, port):
    cable = Cable(port)
    cable.send(ARP_REQUEST)  # the guest learns our address from it
    yield cable
    cable.close()


def test_addresses(vm):
    """The address of dunlin.conf is the first NIC's, the MTU everyone's."""
    assert address(vm) == GUEST
    for nic in ("nic0", "nic1"):
        vm.wait_console(f"{nic}: 00:15:5d:44:4c:0{nic[-1]}, NVSP 6.1, MTU 1300,", 30)
    assert " debug: " in vm.console()


def test_arp(cable):
    cable.send(ARP_REQUEST)
    answer = cable.receive(lambda f: f[12:14] == b"\x08\x06" and f[20:22] == b"\0\x02")
    assert answer[:14] == HERE_MAC + GUEST_MAC + b"\x08\x06"
    assert answer[22:42] == (GUEST_MAC + socket.inet_aton(GUEST) +
                             HERE_MAC + socket.inet_aton(HERE))


def test_ping(cable):
    echo = struct.pack("!BBHHH", 8, 0, 0, 7, 9) + b"over the cable"
    cable.send(ipv4(1, echo[:2] + struct.pack("!H", checksum(echo)) + echo[4:]))
    answer = cable.receive(lambda f: f[12:14] == b"\x08\x00" and f[23] == 1)
    assert checksum(answer[14:34]) == 0 and checksum(answer[34:62]) == 0
    assert answer[34:36] == b"\0\0" and answer[38:62] == echo[4:]


def test_tcp_checksum(cable):
    """Nobody beyond this cable completes a checksum: the host has to, for it offers the offload."""
    syn = struct.pack("!HHIIBBHHH", 40000, 5201, 1000, 0, 5 << 4, 2, 8192, 0, 0)
    total = checksum(pseudo_header(HERE, GUEST, syn) + syn)
    cable.send(ipv4(6, syn[:16] + struct.pack("!H", total) + syn[18:]))
    answer = cable.receive(lambda f: f[12:14] == b"\x08\x00" and f[23] == 6)
    segment = answer[34:14 + struct.unpack("!H", answer[16:18])[0]]
    ports_and_numbers = struct.unpack("!HHII", segment[:12])
    assert ports_and_numbers[:2] == (5201, 40000) and ports_and_numbers[3] == 1001
    assert segment[13] == 0x12  # SYN, ACK
    assert struct.unpack("!H", segment[22:24])[0] == 1300 - 40 and segment[20:22] == b"\x02\x04"
    assert checksum(pseudo_header(GUEST, HERE, segment) + segment) == 0


def test_udp_checksum(cable):
    """The same for datagrams, which the echo service sends back."""
    datagram = struct.pack("!HHHH", 40001, 7, 8 + 301, 0) + os.urandom(301)
    total = checksum(pseudo_header(HERE, GUEST, datagram, 17) + datagram)
    cable.send(ipv4(17, datagram[:6] + struct.pack("!H", total) + datagram[8:]))
    answer = cable.receive(lambda f: f[12:14] == b"\x08\x00" and f[23] == 17)
    back = answer[34:14 + struct.unpack("!H", answer[16:18])[0]]
    assert checksum(answer[14:34]) == 0
    assert back[6:8] != b"\0\0" and checksum(pseudo_header(GUEST, HERE, back, 17) + back) == 0
    assert struct.unpack("!HH", back[:4]) == (7, 40001) and back[8:] == datagram[8:]


def test_udp_checksum_ip6(vm, cable):
    """And over IPv6; first the guest asks who we are."""
    vm.wait_console(f"net: nic0: address {GUEST6}", 60)
    datagram = struct.pack("!HHHH", 40001, 7, 8 + 301, 0) + os.urandom(301)
    cable.send(ipv6(17, datagram, 6))
    question = cable.receive(lambda f: f[12:14] == b"\x86\xdd" and f[20] == 58 and f[54] == 135 and
                             f[62:78] == socket.inet_pton(socket.AF_INET6, HERE6))
    assert question[22:38] == socket.inet_pton(socket.AF_INET6, GUEST6)
    cable.send(ipv6(58, struct.pack("!BBHI", 136, 0, 0, 0x60000000) + question[62:78] + b"\2\1" +
                    HERE_MAC, 2))
    answer = cable.receive(lambda f: f[12:14] == b"\x86\xdd" and f[20] == 17)
    back = answer[54:54 + struct.unpack("!H", answer[18:20])[0]]
    assert checksum(pseudo_header6(GUEST6, HERE6, 17, back) + back) == 0
    assert struct.unpack("!HH", back[:4]) == (7, 40001) and back[8:] == datagram[8:]


@pytest.mark.parametrize("options", [[], ["-R"]], ids=["to-guest", "from-guest"])
def test_iperf_over_the_second(vm, options):
    check_iperf(vm, *options, seconds=1)
