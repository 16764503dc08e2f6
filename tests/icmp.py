# SPDX-License-Identifier: BSD-2-Clause
"""Pings that wait for what they are to see. The program waits, after its last question, no longer than
two of the round trips it has seen: on a busy machine an answer that comes late counts as lost."""

import dataclasses
import os
import select
import socket
import struct
import time

SO_RCVBUFFORCE, IP_MTU_DISCOVER, IPV6_MTU_DISCOVER, PMTUDISC_DO = 33, 10, 23, 2
QUIET = 0.05  # seconds without an answer, after which it is looked whether all have come


@dataclasses.dataclass
class Answers:
    """What came back, in the order in which it came."""
    sequence: list = dataclasses.field(default_factory=list)  # numbers from 1 on; some may be there twice
    times: list = dataclasses.field(default_factory=list)  # ms

    @property
    def received(self):
        """How many questions were answered."""
        return len(set(self.sequence))

    @property
    def twice(self):
        """How many answers were not the first."""
        return len(self.sequence) - self.received


def checksum(data):
    total = sum(struct.unpack(f"!{len(data) // 2}H", data[:len(data) & ~1]))
    total += data[-1] << 8 if len(data) % 2 else 0
    total = (total & 0xffff) + (total >> 16)
    return ~(total + (total >> 16)) & 0xffff


def _message(kind, identifier, number, noise):
    """An echo request or answer; for IPv6 the kernel fills in the checksum."""
    head = struct.pack("!BBH2sH", kind, 0, 0, identifier, number)
    return head[:2] + struct.pack("!H", checksum(head + noise)) + head[4:] + noise


def ping(net, target, count, *, size=56, interval=0.02, burst=1, whole=False, source=None, done=None,
         timeout=30):
    """Asks `target` from inside the namespace of `net`: `burst` questions of so many bytes together, the
    next ones `interval` seconds later; whole: not in fragments; source: from this address. Returns the answers when done(answers) is true
    (all have been answered, unless it says something else), or after `timeout` seconds: judge them."""
    done = done or (lambda answers: answers.received == count)
    ip6 = ":" in target
    family, protocol = ((socket.AF_INET6, socket.IPPROTO_ICMPV6) if ip6 else
                        (socket.AF_INET, socket.IPPROTO_ICMP))
    question, answer = (128, 129) if ip6 else (8, 0)
    answers, noise, began = Answers(), os.urandom(size), {}
    identifier = os.urandom(2)  # answers to the questions of the call before may still come

    def take(packet, now):
        message = packet if ip6 else packet[(packet[0] & 15) * 4:]
        number = int.from_bytes(message[6:8], "big")
        if message[0] == answer and message[4:6] == identifier:
            assert number in began and message[8:] == noise, "this is not what was asked"
            answers.sequence.append(number)
            answers.times.append((now - began[number]) * 1000)

    def connected():
        sock = socket.socket(family, socket.SOCK_RAW, protocol)
        sock.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, 8 << 20)
        if whole:
            sock.setsockopt(*((socket.IPPROTO_IPV6, IPV6_MTU_DISCOVER) if ip6 else
                              (socket.IPPROTO_IP, IP_MTU_DISCOVER)), PMTUDISC_DO)
        if source:
            sock.bind((source, 0))
        sock.connect(socket.getaddrinfo(target, 0, family)[0][4])  # of a link: with its number
        return sock

    with net.enter(connected) as sock:
        due = time.monotonic()
        deadline = due + timeout
        while True:
            pause = max(due - time.monotonic(), 0) if len(began) < count else QUIET
            if select.select([sock], [], [], pause)[0]:
                take(sock.recv(65536), time.monotonic())
            elif len(began) < count:
                for _ in range(min(burst, count - len(began))):
                    number = len(began) + 1
                    began[number] = time.monotonic()
                    sock.send(_message(question, identifier, number, noise))
                due = time.monotonic() + interval
            elif done(answers) or time.monotonic() > deadline:
                return answers


def check_ping(net, target, count=5, **options):
    """Each is answered, once, with what was asked."""
    answers = ping(net, target, count, **options)
    assert sorted(answers.sequence) == list(range(1, count + 1)), answers
