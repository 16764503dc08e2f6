# SPDX-License-Identifier: BSD-2-Clause
"""A network namespace with taps for VMs (vnet headers on) and a DHCP server: a LAN of our own that
leaves the machine's network alone. Used by the benchmark and the end-to-end tests. Needs root.

It is removed when the `with` block ends; what a killed process left behind goes at the next start."""

import ctypes
import os
import re
import shutil
import signal
import subprocess
import time

from . import BUILD, HvError

PREFIX = "dunlin-"
PR_SET_PDEATHSIG = 1
CLONE_NEWNET = 0x40000000
_LIBC = ctypes.CDLL(None, use_errno=True)


def _die_with_parent():
    _LIBC.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def _setns(fd):
    if _LIBC.setns(fd, CLONE_NEWNET):
        raise OSError(ctypes.get_errno(), "setns")


def enter(namespace, make):
    """What make() returns when this thread calls it inside the network namespace of that name."""
    with open(f"/run/netns/{namespace}", "rb") as there, \
            open("/proc/thread-self/ns/net", "rb") as home:
        _setns(there.fileno())
        try:
            return make()
        finally:
            _setns(home.fileno())


def _ip(*arguments):
    done = subprocess.run(["ip", *map(str, arguments)], text=True, check=False,
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    if done.returncode:
        raise HvError(f"ip {' '.join(map(str, arguments))} failed: {done.stdout.strip()}")
    return done.stdout


def make_namespace(namespace):
    """A network namespace whose own IPv6 addresses can be used at once. Linux would first ask for one to
    two seconds whether somebody has them, and send from another address meanwhile."""
    _ip("netns", "add", namespace)
    _ip("-n", namespace, "link", "set", "lo", "up")
    _ip("netns", "exec", namespace, "sh", "-c", "cd /proc/sys/net/ipv6/conf; "
        "echo 0 >all/accept_dad; echo 0 >default/accept_dad")


def _remove_stale():
    """Our names end in the process id of their maker; one without a maker is left over."""
    for line in _ip("netns", "list").splitlines():
        match = re.match(re.escape(PREFIX) + r"\S*-(\d+)(?: |$)", line)
        if match and not os.path.exists(f"/proc/{match[1]}"):
            subprocess.run(["ip", "netns", "delete", line.split()[0]], check=False,
                           stderr=subprocess.DEVNULL)
            shutil.rmtree(BUILD / "run" / line.split()[0], ignore_errors=True)


class TapNet:
    """Taps tap0, tap1, ...: tapN has 10.77.N.1/24 here and leases 10.77.N.100-199 there. With
    multi_queue a VM gets a queue of the tap for each channel of its NIC. With ip6 it also has
    fd77:N::1/64, and makes itself known as a router for guests to take addresses from. dhcp_options
    is what else DHCP says, as in "tag:tap4,26,1300" to those behind tap4; lease is for how long
    addresses are given, as dnsmasq has it (2 minutes at least)."""

    def __init__(self, purpose, taps=1, mtu=1500, dhcp=True, multi_queue=False, ip6=False,
                 dhcp_options=(), lease="1h"):
        if os.geteuid() != 0:
            raise HvError("taps and network namespaces need root; run the same command with sudo")
        for program, package in (("ip", "iproute2"), ("dnsmasq", "dnsmasq-base")):
            if not shutil.which(program, path=os.environ.get("PATH", "") + ":/usr/sbin:/sbin"):
                raise HvError(f"{program} is missing: apt-get install {package}")
        self.name = f"{PREFIX}{purpose}-{os.getpid()}"
        self.taps = [f"tap{n}" for n in range(taps)]
        self.mtu = mtu
        self.dhcp = dhcp
        self.multi_queue = multi_queue
        self.ip6 = ip6
        self.dhcp_options = dhcp_options
        self.lease = lease
        self.folder = BUILD / "run" / self.name
        self._server = None

    def here(self, tap=0):
        """This side's address on a tap."""
        return f"10.77.{tap}.1"

    def __enter__(self):
        _remove_stale()
        try:
            make_namespace(self.name)
            for number, tap in enumerate(self.taps):
                # The host opens the tap by name; these flags have to be the same on both sides.
                flags = ["vnet_hdr", *(["multi_queue"] if self.multi_queue else [])]
                _ip("-n", self.name, "tuntap", "add", "mode", "tap", *flags, "name", tap)
                _ip("-n", self.name, "address", "add", f"{self.here(number)}/24", "dev", tap)
                if self.ip6:
                    _ip("-n", self.name, "address", "add", f"fd77:{number}::1/64", "dev", tap, "nodad")
                _ip("-n", self.name, "link", "set", tap, "mtu", self.mtu, "up")
            if self.dhcp:
                self._start_dhcp()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *_):
        self.close()

    def close(self):
        """Ends the server and removes the namespace with its taps. Fine to call twice."""
        if self._server:
            self._server.kill()
            self._server.wait()
            self._server = None
        subprocess.run(["ip", "netns", "delete", self.name], check=False,
                       stderr=subprocess.DEVNULL)
        shutil.rmtree(self.folder, ignore_errors=True)

    def command(self, *arguments):
        """The command line that runs something in the namespace."""
        return ["ip", "netns", "exec", self.name, *map(str, arguments)]

    def run(self, *arguments, timeout=60):
        """Runs a program in the namespace to its end; returns it with its output as text."""
        return subprocess.run(self.command(*arguments), text=True, check=False, timeout=timeout,
                              stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                              stderr=subprocess.STDOUT)

    def popen(self, *arguments, **options):
        """Starts a program in the namespace; it dies with this process."""
        return subprocess.Popen(self.command(*arguments), preexec_fn=_die_with_parent,
                                stdin=subprocess.DEVNULL, **options)

    def enter(self, make):
        """What make() returns when this thread calls it inside the namespace."""
        return enter(self.name, make)

    def log(self):
        """What the DHCP server has logged."""
        return (self.folder / "dnsmasq.log").read_text(encoding="utf-8", errors="replace")

    def _start_dhcp(self):
        self.folder.mkdir(parents=True, exist_ok=True)
        log = self.folder / "dnsmasq.log"
        ranges = [f"--dhcp-range=10.77.{n}.100,10.77.{n}.199,{self.lease}"
                  for n in range(len(self.taps))]
        if self.ip6:
            ranges += ["--enable-ra", *[f"--dhcp-range=::,constructor:{tap},ra-only" for tap in self.taps]]
        with open(log, "wb") as output:
            self._server = self.popen(
                "dnsmasq", "--no-daemon", "--conf-file=/dev/null", "--port=0", "--user=root",
                "--pid-file", "--no-ping", "--dhcp-authoritative", "--log-dhcp",
                "--bind-interfaces", *[f"--interface={tap}" for tap in self.taps],
                f"--dhcp-leasefile={self.folder}/leases", *ranges,
                *[f"--dhcp-option={option}" for option in self.dhcp_options],
                stdout=output, stderr=subprocess.STDOUT)
        deadline = time.monotonic() + 10
        while self.log().count("DHCP, IP range") < len(self.taps):
            if self._server.poll() is not None or time.monotonic() > deadline:
                raise HvError(f"dnsmasq did not start: {self.log().strip()}")
            time.sleep(0.02)
