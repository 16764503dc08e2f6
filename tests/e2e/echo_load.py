# SPDX-License-Identifier: BSD-2-Clause
"""Many TCP connections to the echo service at once: opens them one by one, sends on each in turn what
only it can say, checks every byte that comes back, and keeps all open until standard input ends.
Run inside a test's network namespace:  echo_load.py ADDRESS CONNECTIONS BYTES"""

import resource
import selectors
import socket
import sys


def pattern(number, size):
    word = f"connection {number} ".encode()
    return (word * (size // len(word) + 1))[:size]


def main():
    address, count, size = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    resource.setrlimit(resource.RLIMIT_NOFILE, (count + 100, count + 100))
    socks = []
    for _ in range(count):
        sock = socket.create_connection((address, 7), timeout=60)
        sock.settimeout(None)
        sock.setblocking(False)
        socks.append(sock)
    print("open", flush=True)
    chosen = selectors.DefaultSelector()
    left, got = {}, {}
    for number, sock in enumerate(socks):
        left[sock], got[sock] = pattern(number, size), b""
        chosen.register(sock, selectors.EVENT_READ | selectors.EVENT_WRITE, number)
    while chosen.get_map():
        events = chosen.select(60)
        if not events:
            sys.exit("nothing for 60 s")
        for key, mask in events:
            sock = key.fileobj
            if mask & selectors.EVENT_READ:
                piece = sock.recv(65536)
                if not piece:
                    sys.exit(f"connection {key.data} was closed")
                got[sock] += piece
            if mask & selectors.EVENT_WRITE:
                left[sock] = left[sock][sock.send(left[sock][:16384]):]
                if not left[sock]:
                    chosen.modify(sock, selectors.EVENT_READ, key.data)
            if len(got[sock]) >= size:
                if got[sock] != pattern(key.data, size):
                    sys.exit(f"connection {key.data} got other bytes back")
                chosen.unregister(sock)
    print("echoed", flush=True)
    sys.stdin.read()


main()
