# SPDX-License-Identifier: BSD-2-Clause
"""IPv6 of the network stack, built for Linux with sanitizers: against Linux as neighbour, router and
client, and against neighbours that lie."""

import random
import re
import socket
import struct
import subprocess
import time

import pytest

from hvlib.tapnet import enter
from icmp import check_ping
from packets import checksum, raw_socket
from program import Native, build, run

GUEST, HERE = "2001:db8:77::2", "2001:db8:77::1"
SLAAC = "2001:db8:77::ff:fe5e:2"  # from the MAC 02:00:00:5e:00:02
LINK = "fe80::ff:fe5e:2"
MAC = bytes.fromhex("0200005e0002")
MY_MAC = bytes.fromhex("02aabbccdd01")
ROUTER = "fe80::1"
ALL_NODES = "ff02::1"


@pytest.fixture(scope="module", autouse=True)
def built():
    build()


def start(*options):
    """The program on tap0, where we are HERE and ROUTER."""
    native = Native("--offload", *options)
    ip = ["ip", "-n", native.namespace]
    run(*ip, "addr", "add", f"{HERE}/64", "dev", "tap0", "nodad")
    run(*ip, "addr", "add", f"{ROUTER}/64", "dev", "tap0", "nodad")
    return native


@pytest.fixture(scope="module")
def native():
    """On several cores: half of what arrives has to go to another one."""
    program = start("--address6", f"{GUEST}/64", "--cores", "4")
    program.wait_log(rb"ready: iperf3 on 2001:db8:77::2 port 5201\n")
    objects = program.objects()
    yield program
    time.sleep(6)  # what waits for its other fragments goes in five seconds
    program.wait_objects(objects + 100, 15)
    program.close()


def inside(native, *command, **options):
    return subprocess.run([*native.inside, *map(str, command)], text=True, check=False, timeout=60,
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT, **options)


def iperf3(native, *options, target=GUEST, namespace=None):
    client = ["ip", "netns", "exec", namespace] if namespace else native.inside
    done = subprocess.run([*client, "iperf3", "-6", "-c", target, *options], text=True, check=False,
                          timeout=60, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    assert done.returncode == 0, done.stdout
    rates = re.findall(r"([\d.]+) ([KMG])bits/sec.*receiver", done.stdout)
    assert rates and all(float(rate) for rate, _ in rates), done.stdout


def check_echo(namespace, target, size):
    """There and back, from another namespace."""
    data, back = random.randbytes(size), bytearray()
    with enter(namespace, lambda: socket.create_connection((target, 7), timeout=15)) as sock:
        sock.sendall(data)
        while len(back) < size:
            back += sock.recv(65536)
    assert bytes(back) == data


# ---- Packets made here ----

def address(text):
    return socket.inet_pton(socket.AF_INET6, text)


def frame(source, target, payload, hops=255, following=58):
    """An Ethernet frame; an ICMPv6 payload gets its checksum."""
    source, target = address(source), address(target)
    if following == 58:
        pseudo = source + target + struct.pack("!II", len(payload), 58)
        total = checksum(pseudo + payload[:2] + bytes(2) + payload[4:])
        payload = payload[:2] + struct.pack("!H", total) + payload[4:]
    ip = struct.pack("!IHBB", 6 << 28, len(payload), following, hops) + source + target
    to = b"\x33\x33" + target[12:] if target[0] == 0xff else MAC
    return to + MY_MAC + b"\x86\xdd" + ip + payload


def router_advertisement(prefix="2001:db8:77::", lifetime=1800, valid=3600):
    return (struct.pack("!BBHBBHII", 134, 0, 0, 64, 0, lifetime, 0, 0) + b"\1\1" + MY_MAC +
            struct.pack("!BBBBIII", 3, 4, 64, 0xc0, valid, valid, 0) + address(prefix))


def dns_servers(lifetime, *servers):
    """An option of a router's advertisement."""
    return struct.pack("!BBHI", 25, 1 + 2 * len(servers), 0, lifetime) + b"".join(map(address, servers))


def neighbor_advertisement(target, flags=0x20, mac=MY_MAC):
    return struct.pack("!BBHI", 136, 0, 0, flags << 24) + address(target) + b"\2\1" + mac


def neighbor_solicitation(target, mac=MY_MAC):
    return struct.pack("!BBHI", 135, 0, 0, 0) + address(target) + b"\1\1" + mac


def too_big(mtu, source, target, following=58):
    about = struct.pack("!IHBB", 6 << 28, 1400, following, 64) + address(source) + address(target)
    return struct.pack("!BBHI", 2, 0, 0, mtu) + about + bytes(20)


def fragment(offset, more, number, size=1448):
    header = struct.pack("!BBHI", 58, 0, offset | more, number)
    return header + bytes([128]) + bytes(size - 1)


# ---- What works ----

@pytest.mark.parametrize("size", [0, 56, 1452, 1453, 8000, 65000])
def test_ping(native, size):
    check_ping(native, GUEST, 3, size=size)
    if size < 1452:
        check_ping(native, f"{LINK}%tap0", 3, size=size)


@pytest.mark.parametrize("options", [["-t", "1"], ["-t", "1", "-R"], ["-t", "1", "--bidir", "-P", "4"],
                                     ["-t", "1", "-R", "-M", "600"]], ids=" ".join)
def test_iperf3(native, options):
    iperf3(native, *options)


@pytest.mark.parametrize("options", [(), ("--no-large-send", "--no-large-receive", "--cores", "4")],
                         ids=["large", "small-4-cores"])
def test_router(options):
    """An address, a prefix and a default route from an advertisement; and a client behind the
    router whose path is narrower than either end of it."""
    native = start(*options)
    far, ip = native.namespace + "-far", ["ip", "-n", native.namespace]
    try:
        run("ip", "netns", "add", far)
        # The two sides of this link do not agree on how long a packet may be.
        run(*ip, "link", "add", "far", "mtu", "1300", "type", "veth", "peer", "name", "near",
            "mtu", "1500", "netns", far)
        run(*ip, "addr", "add", "2001:db8:88::1/64", "dev", "far", "nodad")
        run(*ip, "link", "set", "far", "up")
        run("ip", "-n", far, "addr", "add", "2001:db8:88::2/64", "dev", "near", "nodad")
        run("ip", "-n", far, "link", "set", "near", "up")
        run("ip", "-n", far, "-6", "route", "add", "default", "via", "2001:db8:88::1")
        run(*native.inside, "sysctl", "-qw", "net.ipv6.conf.all.forwarding=1")
        native.wait_log(rb"address fe80::ff:fe5e:2\n")
        own = inside(native, "cat", "/sys/class/net/tap0/address").stdout.strip()
        sock = raw_socket(native, 0x86dd)
        advertisement = router_advertisement().replace(MY_MAC, bytes.fromhex(own.replace(":", "")))
        sock.send(frame(ROUTER, ALL_NODES, advertisement + dns_servers(600, HERE, "2001:db8:77::53")))
        native.wait_log(rf"ready: iperf3 on {SLAAC} port 5201\n".encode())
        check_ping(native, SLAAC, 3)
        assert native.report().endswith(f" dns {HERE} 2001:db8:77::53")
        check_echo(far, SLAAC, 30000)  # what is too long waits with lwIP
        iperf3(native, "-t", "1", "-R", target=SLAAC, namespace=far)
        iperf3(native, "-t", "1", target=SLAAC, namespace=far)
        numbers = native.stats()
        assert numbers["ip6"]["too_big"] > 0
        assert numbers["sender"]["timeouts"] == 0  # what was too long went out again at once
        # An advertisement that takes it all back: the address stays for its two hours at least.
        sock.send(frame(ROUTER, ALL_NODES, router_advertisement(lifetime=0, valid=0) +
                        dns_servers(0, HERE)))
        time.sleep(2.5)
        check_ping(native, SLAAC, 3)
        assert native.report().endswith(" dns 2001:db8:77::53")
        native.type("late 600")  # the clock has shown it
        assert native.report().endswith(" dns 2001:db8:77::53")
        native.type("revalidate 600")  # it was said for so long
        assert native.report().endswith(" dns")
        sock.close()
    finally:
        native.close()
        run("ip", "netns", "del", far)


def test_jumbo_frames():
    native = start("--address6", f"{GUEST}/64", "--mtu", "9000")
    try:
        run("ip", "-n", native.namespace, "link", "set", "tap0", "mtu", "9000")
        native.wait_log(rb"ready: iperf3 on 2001:db8:77::2 port 5201\n")
        before = native.stats()["net"]["nic0"]
        check_ping(native, GUEST, 3, size=8952, whole=True)
        check_ping(native, GUEST, 3, size=20000)
        after = native.stats()["net"]["nic0"]
        assert after["tx_frames"] - before["tx_frames"] < 3 + 3 * 3 + 5
        iperf3(native, "-t", "1", "-R")
        iperf3(native, "-t", "1")
    finally:
        native.close()


def test_mtu_too_small():
    native = start("--mtu", "1279")
    try:
        native.wait_log(rb"warn: net: nic0: no IPv6, ")
        native.type("configure 0 10.77.0.2/24 2001:db8:77::9")
        native.wait_log(rb"warn: net: nic0: what the host configures is refused: the MTU is less than ")
        native.wait_log(rb"configured: -22\n")
        assert "2001:" not in native.report()
    finally:
        native.close()


def test_address_that_another_has():
    native = Native("--offload", "--address6", f"{GUEST}/64")
    run("ip", "-n", native.namespace, "addr", "add", f"{GUEST}/64", "dev", "tap0", "nodad")
    try:
        native.wait_log(rb"address 2001:db8:77::2 not used: another host has it\n")
        native.wait_log(rb"address fe80::ff:fe5e:2\n")
        check_ping(native, f"{LINK}%tap0", 3)
    finally:
        native.close()


# ---- What does no harm ----

def test_address_in_use_is_kept(native):
    before = native.stats()["ip6"]["conflicts"]
    with raw_socket(native, 0x86dd) as sock:
        sock.send(frame("fe80::5", ALL_NODES, neighbor_advertisement(GUEST)))
        sock.send(frame("fe80::5", GUEST, neighbor_advertisement(GUEST, flags=0x60)))
    check_ping(native, GUEST, 3)
    assert native.stats()["ip6"]["conflicts"] == before + 2


def test_path_mtu_on_nobodys_word(native):
    """Messages about packets that were never sent, or with impossible sizes, are not believed."""
    check_ping(native, GUEST, 3)
    before = native.stats()["ip6"]
    with raw_socket(native, 0x86dd) as sock:
        for mtu in (0, 68, 1279, 1500, 9000):
            sock.send(frame("fe80::5", GUEST, too_big(mtu, GUEST, HERE)))
        sock.send(frame("fe80::5", GUEST, too_big(1280, HERE, GUEST)))
        sock.send(frame("fe80::5", GUEST, too_big(1280, GUEST, HERE, following=6)))
        sock.send(frame("fe80::5", GUEST, too_big(1280, GUEST, HERE))[:-1] + b"\1")
    check_ping(native, GUEST, 3)
    after = native.stats()["ip6"]
    assert after["refused"] == before["refused"] + 8
    assert after["too_big"] == before["too_big"]


def test_datagram_longer_than_any(native):
    """Fragments of more than 65535 bytes with their headers; and too many for the memory."""
    with raw_socket(native, 0x86dd) as sock:
        for number in range(4):
            for offset in range(0, 65504, 1448):
                size = min(1448, 65504 - offset)
                sock.send(frame(HERE, GUEST, fragment(offset, 1, number, size), following=44))
            sock.send(frame(HERE, GUEST, fragment(65504, 0, number, 8 + number), following=44))
            time.sleep(0.2)
    check_ping(native, GUEST, 3, size=8000)


def test_neighbors_without_number(native):
    """More neighbours, routers and prefixes than any table holds."""
    objects = native.objects()
    with raw_socket(native, 0x86dd) as sock:
        for number in range(3000):
            who = f"2001:db8:77::1:{number + 1:x}"
            sock.send(frame(who, GUEST, neighbor_solicitation(GUEST)))
            sock.send(frame(f"fe80::{number + 1:x}", ALL_NODES,
                            router_advertisement(f"2001:db8:{number:x}::", valid=5)))
            if number % 50 == 0:
                time.sleep(0.01)  # the queue of the TAP device is short
    check_ping(native, GUEST, 3)
    iperf3(native, "-t", "1", "-R")
    native.wait_objects(objects + 100, 20)  # groups of the addresses, queues of neighbours


def echo(number):
    return struct.pack("!BBHHH", 128, 0, 0, 1, number)


def test_queue_that_feeds_itself():
    """A reply waits for its gateway's address; its destination becomes a neighbour; the gateway answers
    when no table has room but its own entry. lwIP would move the reply from that entry's queue to the
    same queue for ever."""
    gateway, far = "2001:db8:77::9999", "2001:db8:99::1"
    native = start("--address6", f"{GUEST}/64", "--gateway6", gateway)
    known = [f"2001:db8:77::2:{n:x}" for n in range(1, 65)]
    try:
        native.wait_log(rb"ready: iperf3 on 2001:db8:77::2 port 5201\n")
        lines = "".join(f"addr add {a}/128 dev tap0 nodad\n" for a in known)
        inside(native, "ip", "-b", "-", input=lines)
        with raw_socket(native, 0x86dd) as sock:
            for attempt in range(10):
                sock.send(frame(ROUTER, ALL_NODES, router_advertisement(valid=0)))
                for number, who in enumerate(known):  # the table of destinations is full, and fresh
                    sock.send(frame(who, GUEST, echo(number)))
                time.sleep(0.3)
                for number, who in enumerate(known):
                    sock.send(frame(who, GUEST, echo(number)))
                for number in range(62):  # so is that of neighbours, with nobody who answers
                    sock.send(frame(f"2001:db8:77::3:{attempt:x}{number:02x}", GUEST, echo(number)))
                sock.send(frame(far, GUEST, echo(0)))
                sock.send(frame(ROUTER, ALL_NODES, router_advertisement("2001:db8:99::")))
                sock.send(frame("2001:db8:9a::1", GUEST, echo(0)))  # takes the place of `far`
                sock.send(frame(gateway, GUEST, neighbor_advertisement(gateway, flags=0x60)))
                native.stats()  # it still runs
                sock.send(frame(ROUTER, ALL_NODES, router_advertisement("2001:db8:99::", valid=0)))
                if native.stats()["net"]["nic0"]["tx_unresolved"]:
                    break
                time.sleep(4)  # until the neighbours that nobody knows are forgotten
            else:
                pytest.fail("it did not come to that")
        check_ping(native, GUEST, 3)
    finally:
        native.close()


def test_damaged_packets(native):
    """Sound packets of all kinds with a few bytes changed, their checksums right."""
    packets = [(neighbor_solicitation(GUEST), 58), (neighbor_advertisement(HERE), 58),
               (router_advertisement(), 58), (too_big(1300, GUEST, HERE), 58),
               (fragment(0, 1, 7, 64), 44), (fragment(64, 0, 7, 9), 44),
               (b"\x3a\0\5\2\0\0\1\0" + struct.pack("!BBHI", 130, 0, 0, 1000 << 16) + bytes(16), 0),
               (struct.pack("!BBHI", 137, 0, 0, 0) + address(HERE) * 2, 58),
               (struct.pack("!HHIIBBHHH", 4000, 5201, 1, 0, 0x50, 2, 1000, 0, 0), 6),
               (struct.pack("!HHHH", 4000, 7, 12, 0) + b"data", 17)]
    chance = random.Random(6)
    with raw_socket(native, 0x86dd) as sock:
        for number in range(20000):
            payload, following = chance.choice(packets)
            payload = bytearray(payload)
            for _ in range(chance.randrange(4)):
                payload[chance.randrange(len(payload))] = chance.randrange(256)
            payload = bytes(payload[:chance.randrange(len(payload))] if chance.randrange(4) == 0
                            else payload)
            source = chance.choice([HERE, ROUTER, "::", "fe80::5"])
            target = chance.choice([GUEST, LINK, ALL_NODES, "ff02::1:ff00:2"])
            data = bytearray(frame(source, target, payload.ljust(4, b"\0"), chance.choice([255, 255, 1]),
                                   following))
            if chance.randrange(8) == 0:
                data[14 + chance.randrange(40)] = chance.randrange(256)
            sock.send(bytes(data))
            if number % 100 == 0:
                time.sleep(0.005)
    native.stats()  # it still runs
    inside(native, "ip", "neigh", "flush", "dev", "tap0")
    check_ping(native, f"{LINK}%tap0", 3)
