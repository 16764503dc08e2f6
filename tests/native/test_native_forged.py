# SPDX-License-Identifier: BSD-2-Clause
"""Segments and messages that lwIP believes though it should not, or that would make it assert: nothing
ends, nothing is lost, and the connection goes on."""

import os
import socket
import struct
import subprocess
import time

import pytest

from packets import Peer, frame, icmp, ip4, raw_socket, segment
from program import HERE, SERVER, Native, build

ECHO, IPERF3 = 7, 5201
SO_RCVBUFFORCE = 33


@pytest.fixture(scope="module")
def native():
    build()
    n = Native("--offload")
    yield n
    n.close()


def echoed(peer, data):
    """The rest of what was sent comes back once it is acknowledged."""
    def more():
        peer.say(flags=0x10)
        return len(peer.received) == len(data)
    peer.wait(more)
    assert bytes(peer.received) == data
    peer.close()


@pytest.mark.parametrize("options", ["02040001", "0101020400010101", "0102040001000000", "020422c4"])
def test_mss_in_an_ordinary_segment(native, options):
    """Only a SYN's counts: else what waits to be sent would be longer than a segment may be."""
    peer = Peer(native, 21000, ECHO)
    data = os.urandom(1001)
    peer.say(data=data[:1])
    peer.say(data=data[1:], window=0)  # its echo has to wait
    time.sleep(0.1)
    peer.say(bytes.fromhex(options), data=b"x", window=0)
    time.sleep(0.1)
    peer.say(data=b"y")
    echoed(peer, data + b"xy")
    assert peer.longest <= 1460


def test_larger_mss_in_an_ordinary_segment(native):
    """What the SYN said stands."""
    peer = Peer(native, 21001, ECHO, mss=500)
    data = os.urandom(1400)
    peer.say(struct.pack("!BBH", 2, 4, 8960) * 2, data=data)
    echoed(peer, data)
    assert peer.longest <= 500


def test_narrow_path_while_segments_are_out(native):
    """They are cut, and sent again at once."""
    peer = Peer(native, 21002, ECHO)
    data = os.urandom(2920)
    peer.say(data=data[:1460])
    peer.say(data=data[1460:])
    peer.wait(lambda: len(peer.received) == len(data))
    about = ip4(6, struct.pack("!HHI", ECHO, 21002, (peer.isn + 1) % 2**32), SERVER, Peer.ADDRESS)
    peer.raw.send(frame(ip4(1, icmp(3, 4, struct.pack("!HH", 0, 600), about))))
    assert bytes(peer.received) == data
    peer.received, peer.longest = bytearray(), 0
    peer.wait(lambda: len(peer.received) == len(data))
    assert bytes(peer.received) == data
    assert peer.longest <= 560
    peer.received = bytearray()
    peer.say(data=b"more")
    echoed(peer, data + b"more")


def test_acknowledgement_of_what_was_never_sent(native):
    """Blind guesses at a connection that sends: they are nothing to its sender, either."""
    raw = raw_socket(native)
    with subprocess.Popen([*native.inside, "iperf3", "-c", SERVER, "-R", "-t", "1", "--cport", "40000"],
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as client:
        place = 0  # in the receive window: else the acknowledgement does not even count
        while not place:
            packet = raw.recv(65536)[14:]
            if len(packet) > 1000 and packet[9] == 6 and packet[22:24] == struct.pack("!H", 40000):
                place = struct.unpack("!I", packet[28:32])[0]
        for number in range(1000):
            raw.send(frame(segment(HERE, 40000, IPERF3, place, number * 99999989, flags=0x10)))
            time.sleep(0.001)
        said, _ = client.communicate(timeout=30)
    raw.close()
    assert client.returncode == 0, said
    assert native.stats()["sender"]["acked_ahead"] > 0


def test_acknowledgement_by_an_old_segment(native):
    """Of all that goes out, also of what is lost on the way: the sender does not believe it."""
    lossy = Native("--offload", "--wire", "delay=10,loss=10000", "--seed", "7")
    raw, said, forged = raw_socket(lossy), [], 0
    raw.setblocking(False)
    try:
        with subprocess.Popen([*lossy.inside, "iperf3", "-c", SERVER, "-R", "-n", "4M"],
                              stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as client:
            end = time.monotonic() + 30
            while client.poll() is None and time.monotonic() < end:
                try:
                    packet = raw.recv(65536)[14:]
                except BlockingIOError:
                    time.sleep(0.001)
                    continue
                if packet[12:16] != socket.inet_aton(SERVER) or packet[9] != 6 or len(packet) < 1000:
                    continue
                source, port, sequence, acknowledged = struct.unpack("!HHII", packet[20:32])
                length = struct.unpack("!H", packet[2:4])[0] - 20 - (packet[32] >> 4) * 4
                raw.send(frame(segment(HERE, port, source, acknowledged - 2, sequence + length,
                                       flags=0x10)))
                forged += 1
            client.kill()
            said = client.communicate()[0]
        assert client.returncode == 0, said
        assert forged > 10
        assert lossy.stats()["sender"]["resent"] > 0
    finally:
        raw.close()
        lossy.close()


def test_echo_acknowledged_by_an_old_segment(native):
    """What is lost stays lwIP's to send again; and an old segment is answered."""
    peer = Peer(native, 21004, ECHO)
    data = os.urandom(1000)
    peer.say(data=data)
    peer.wait(lambda: len(peer.received) == len(data))
    before = native.stats()["tcp"]["old_acks"]
    old = peer.ISN + 1 + peer.sent - 100
    peer.say(flags=0x10, sequence=old)  # of all that has come
    peer.wait(lambda: native.stats()["tcp"]["old_acks"] == before + 1)
    peer.received = bytearray()  # it was lost, as far as the window goes
    peer.wait(lambda: len(peer.received) == len(data))
    assert bytes(peer.received) == data
    peer.say(data=b"more")
    echoed(peer, data + b"more")


def test_window_of_64_kib(native):
    """The end of a connection that has more under way waits for a larger one; lwIP's timer for that
    looks at the window's lower 16 bits, and must not find nothing there."""
    cookie = b"c" * 36 + b"\0"
    with native.connect(IPERF3) as control:
        control.sendall(cookie)
        assert control.recv(1) == b"\x09"  # PARAM_EXCHANGE
        text = b'{"tcp": true, "time": 10, "parallel": 1, "reverse": true, "len": 131072}'
        control.sendall(struct.pack("!I", len(text)) + text)
        assert control.recv(1) == b"\x0a"  # CREATE_STREAMS
        peer = Peer(native, 21005, IPERF3, options=b"\3\3\7\1")
        peer.raw.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, 8 << 20)
        peer.say(data=cookie)
        assert control.recv(2, socket.MSG_WAITALL) == b"\x01\x02"  # TEST_START, TEST_RUNNING

        taken = 0
        while taken < 1 << 20:  # in small steps, so that lwIP's own idea of the path grows, too
            peer.wait(lambda seen=taken: len(peer.received) > seen, 30)
            for taken in [*range(taken + 3000, len(peer.received), 3000), len(peer.received)]:
                peer.say(flags=0x10, taken=taken)
        peer.wait(lambda: len(peer.received) > taken + 140_000)
        peer.say(flags=0x10, window=65536 >> 7, taken=taken + 1)
        native.stats()  # it has been taken
        control.sendall(b"\x04")  # TEST_END
        time.sleep(1)  # lwIP's timer comes ten times
        native.stats()
        peer.close()


def test_window_that_opens_a_little(native):
    """After there was none at all: what was made for a large one still has to fit."""
    peer = Peer(native, 21003, ECHO, window=0)
    data = os.urandom(1000)
    peer.say(data=data, window=0)
    time.sleep(0.1)
    for window in (2, 30, 200):
        peer.say(data=b"z", window=window)
        time.sleep(0.1)
        peer.take()
    echoed(peer, data + b"zzz")


@pytest.fixture
def advertise(native):
    """A function that says what MSS the kernel's own clients are to ask for."""
    ip = ["ip", "-n", native.namespace, "route", "change", "10.77.0.0/24", "dev", "tap0", "src", HERE]
    yield lambda mss: subprocess.run([*ip, "advmss", str(mss)], check=True)
    subprocess.run(ip, check=True)


@pytest.mark.parametrize("mss", [1, 11, 12, 13])
def test_absurd_mss(native, advertise, mss):
    """Less than the options take: segments are not that short."""
    advertise(mss)
    with native.connect(ECHO) as sock:
        data = os.urandom(300)
        sock.sendall(data)
        came = bytearray()
        while len(came) < len(data):
            came += sock.recv(1000)
        assert bytes(came) == data


@pytest.mark.parametrize("mss", [13, 40, 87, 88, 536])
def test_small_mss(native, advertise, mss):
    """In bulk, too."""
    advertise(mss)
    assert native.iperf3("-R", "-n", "2M")["end"]["sum_received"]["bytes"] >= 2 << 20
