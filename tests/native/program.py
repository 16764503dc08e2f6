# SPDX-License-Identifier: BSD-2-Clause
"""The network stack and its services as a Linux program (dunlin-native) on TAP devices, in a network
namespace of its own together with its clients."""

import json
import os
import re
import select
import socket
import subprocess
import time
from pathlib import Path

from hvlib.tapnet import enter, make_namespace
from support import ROOT, TooLate, make

PROGRAM = ROOT / "build" / "native" / "dunlin-native"
SERVER, HERE = "10.77.0.2", "10.77.0.1"  # on tap0
PORT = 5201


def run(*command):
    subprocess.run(command, check=True)


def build():
    make("-f", "tests/native/native.mk", "native")


class Native:
    """The program, in a network namespace of its own together with its clients."""
    count = 0

    def __init__(self, *options, taps=1, address=True):
        Native.count += 1
        self.namespace = f"dn-{os.getpid()}-{Native.count}"
        self.inside = ["ip", "netns", "exec", self.namespace]
        make_namespace(self.namespace)
        ip = ["ip", "-n", self.namespace]
        names = []
        for number in range(taps):
            tap = f"tap{number}"
            run(*ip, "tuntap", "add", "dev", tap, "mode", "tap", "vnet_hdr")
            run(*ip, "addr", "add", f"10.77.{number}.1/24", "dev", tap)
            run(*ip, "link", "set", tap, "up")
            names += ["--tap", tap]
        self.log = b""
        self.process = subprocess.Popen(
            [*self.inside, PROGRAM, *names, *(["--address", f"{SERVER}/24"] if address else []),
             *map(str, options)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, bufsize=0)
        os.set_blocking(self.process.stdout.fileno(), False)
        if address:
            self.wait_log(rb"dunlin: ready: iperf3 on 10\.77\.0\.2 port 5201\n")

    def type(self, line):
        """Gives the program a command."""
        self.process.stdin.write(line.encode() + b"\n")

    def close(self):
        self.process.stdin.close()
        try:
            self.process.wait(20)
        except subprocess.TimeoutExpired:
            self.process.kill()
            raise
        finally:
            run("ip", "netns", "del", self.namespace)
        self.read()
        assert self.process.returncode == 0, self.log[-4000:].decode(errors="replace")

    def read(self):
        try:
            self.log += self.process.stdout.read() or b""
        except BlockingIOError:
            pass

    def wait_log(self, pattern, timeout=20, start=0):
        end = time.monotonic() + timeout
        while True:
            self.read()
            match = re.search(pattern, self.log[start:])
            if match:
                return match
            tail = self.log[-4000:].decode(errors="replace")
            assert self.process.poll() is None, f"the program ended: {tail}"
            if time.monotonic() > end:
                raise TooLate(f"no {pattern} in the log: {tail}")
            select.select([self.process.stdout], [], [], 0.1)

    def stats(self):
        start = len(self.log)
        self.type("stats")
        return json.loads(self.wait_log(rb"dunlin: stats: (.*)\n", start=start)[1])

    def report(self):
        """What the host would be told of the first NIC."""
        start = len(self.log)
        self.type("report")
        return self.wait_log(rb"report: nic0 (.*)\n", start=start)[1].decode()

    def objects(self):
        """Objects and pages that the program holds."""
        memory = self.stats()["memory"]
        return memory["heap_objects"] + memory["pages"]

    def wait_objects(self, wanted, timeout):
        """Until the program holds no more than `wanted` objects."""
        end = time.monotonic() + timeout
        while self.objects() > wanted:
            if time.monotonic() > end:
                raise TooLate(f"{self.stats()}, {wanted} objects before")
            time.sleep(0.1)

    def iperf3(self, *options, timeout=60):
        """Runs the client; returns its report, which may be of an error. "carried": bytes that came out of
        the program meanwhile, "seconds": how long it took in all."""
        before, start = self.carried(), time.monotonic()
        done = subprocess.run([*self.inside, "iperf3", "-c", SERVER, "-J", *options],
                              capture_output=True, timeout=timeout, check=False)
        report = json.loads(done.stdout)
        report["seconds"] = time.monotonic() - start
        report["carried"] = self.carried() - before
        assert done.returncode == 0, report.get("error", report)
        return report

    def carried(self):
        """Bytes that Linux has got from the program, by all NICs."""
        text = subprocess.run(["ip", "-n", self.namespace, "-s", "-j", "link"], check=True,
                              stdout=subprocess.PIPE).stdout
        return sum(link["stats64"]["rx"]["bytes"] for link in json.loads(text)
                   if link["ifname"].startswith("tap"))

    def enter(self, make):
        """What make() returns when it is called inside the namespace."""
        return enter(self.namespace, make)

    def connect(self, port=PORT):
        """A plain TCP connection to a service, made inside the namespace."""
        return self.enter(lambda: socket.create_connection((SERVER, port), timeout=15))

    def cpu_seconds(self):
        fields = Path(f"/proc/{self.process.pid}/stat").read_text(encoding="ascii").split()
        return (int(fields[13]) + int(fields[14])) / os.sysconf("SC_CLK_TCK")
