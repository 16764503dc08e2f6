# SPDX-License-Identifier: BSD-2-Clause
"""Packets by hand, for the tests of what no honest peer sends."""

import socket
import struct
import time

from program import HERE, SERVER

MAC = bytes([2, 0, 0, 0x5e, 0, 2])  # of the program's first NIC


def raw_socket(native, ethertype=0x800):
    """For frames to and from the guest."""
    def make():
        sock = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ethertype))
        sock.setsockopt(socket.SOL_SOCKET, 33, 16 << 20)  # SO_RCVBUFFORCE: a busy machine reads late
        sock.bind(("tap0", 0))
        return sock
    return native.enter(make)


def checksum(data):
    data += bytes(len(data) % 2)
    total = sum(struct.unpack(f"!{len(data) // 2}H", data))
    total = (total & 0xffff) + (total >> 16)
    return ~(total + (total >> 16)) & 0xffff


def ip4(protocol, payload, source=HERE, target=SERVER, number=1, fragment=0):
    header = struct.pack("!BBHHHBBH4s4s", 0x45, 0, 20 + len(payload), number, fragment, 64,
                         protocol, 0, socket.inet_aton(source), socket.inet_aton(target))
    return header[:10] + struct.pack("!H", checksum(header)) + header[12:] + payload


def frame(packet):
    return MAC + bytes(6) + b"\x08\x00" + packet


def icmp(kind, code, rest, about):
    text = struct.pack("!BBH4s", kind, code, 0, rest) + about
    return text[:2] + struct.pack("!H", checksum(text)) + text[4:]


def segment(source, port, to, sequence, acknowledged, options=b"", data=b"", flags=0x18, window=65000):
    """A TCP segment to SERVER, as an IPv4 packet. Options: a multiple of 4 bytes."""
    text = struct.pack("!HHIIBBHHH", port, to, sequence % 2**32, acknowledged % 2**32,
                       (5 + len(options) // 4) << 4, flags, window, 0, 0) + options + data
    pseudo = socket.inet_aton(source) + socket.inet_aton(SERVER) + struct.pack("!BBH", 0, 6, len(text))
    return ip4(6, text[:16] + struct.pack("!H", checksum(pseudo + text)) + text[18:], source)


class Peer:
    """A client that is a raw socket: it says just what it is told to, and its address is nobody's, so
    that no kernel answers for it."""
    ADDRESS = "10.77.0.9"
    ISN = 1000

    def __init__(self, native, port, to, mss=1460, window=65000, options=b""):
        self.raw = raw_socket(native)
        self.port, self.to = port, to
        self.sent = 0  # bytes
        self.received = bytearray()  # in order
        self.isn = None  # the server's
        self.longest = 0  # payload of a segment that came
        self.frames = 0  # that came with data
        source, own = socket.inet_aton(self.ADDRESS), bytes([2, 0, 0, 0, 0, 9])
        self.raw.send(b"\xff" * 6 + own + b"\x08\x06" + struct.pack(
            "!HHBBH6s4s6s4s", 1, 0x800, 6, 4, 1, own, source, bytes(6), socket.inet_aton(SERVER)))
        self.say(struct.pack("!BBH", 2, 4, mss) + options, flags=2, sequence=self.ISN,
                 window=window)
        self.wait(lambda: self.isn is not None)
        self.say(flags=0x10, window=window)

    def say(self, options=b"", data=b"", flags=0x18, sequence=None, window=65000, taken=None):
        """Sends a segment: new data, or at a sequence number of its own; acknowledges what was received,
        or `taken` bytes of it."""
        taken = len(self.received) if taken is None else taken
        acknowledged = 0 if self.isn is None else self.isn + 1 + taken
        if sequence is None:
            sequence = self.ISN + 1 + self.sent
            self.sent += len(data)
        self.raw.send(frame(segment(self.ADDRESS, self.port, self.to, sequence, acknowledged, options,
                                    data, flags, window)))

    def take(self):
        """Looks at what has come; acknowledges nothing."""
        self.raw.setblocking(False)
        try:
            while True:
                packet = self.raw.recv(65536)[14:]
                if packet[9] == 6 and packet[16:20] == socket.inet_aton(self.ADDRESS) and \
                        struct.unpack("!HH", packet[20:24]) == (self.to, self.port):
                    self.take_segment(packet[20:struct.unpack("!H", packet[2:4])[0]])
        except BlockingIOError:
            pass

    def take_segment(self, text):
        sequence, flags = struct.unpack("!I", text[4:8])[0], text[13]
        if flags & 2:
            self.isn = sequence
            return
        data = text[(text[12] >> 4) * 4:]
        self.longest = max(self.longest, len(data))
        self.frames += len(data) > 0
        at = (sequence - self.isn - 1) % 2**32
        if at <= len(self.received) < at + len(data):
            self.received += data[len(self.received) - at:]

    def wait(self, condition, seconds=30):
        end = time.monotonic() + seconds
        self.take()
        while not condition():
            assert time.monotonic() < end, f"{len(self.received)} of {self.sent} bytes came"
            time.sleep(0.01)
            self.take()

    def close(self):
        self.say(flags=4)  # RST
        self.raw.close()
