# SPDX-License-Identifier: BSD-2-Clause
"""The guests that are compared, each on a tap of its own in one network namespace, and what they
tell about themselves."""

import json
import os
import sys

from hvlib import BUILD, ROOT, HvError
from hvlib.vm import READY, Spec, Vm

sys.path.insert(0, str(ROOT / "tests/reference"))

from linux import CommandFailed, Linux, spec_fields  # noqa: E402  pylint: disable=wrong-import-position

CONF = """[net]
address = {address}/24
[services]
echo = on
discard = on
"""
ECHO_PORT = 7
DISCARD_PORT = 9
# Copying by rep movsb, which this emulated CPU advertises and QEMU executes byte by byte, makes Linux
# two to three times slower here than the same Linux that copies in a loop: so the tuned one does that.
# Nor does it clear pages that it allocates, and it has no workarounds for hardware bugs.
PLAIN_COPIES = "clearcpuid=erms,fsrm,rep_good"
TUNED = "mitigations=off init_on_alloc=0"


class Guest:
    """A running guest. Subclasses know how it is started and asked."""

    def __init__(self, name, number, net, session):
        self.name = name
        self.number = number  # of its tap
        self.address = f"10.77.{number}.2"
        self.session = session
        self.vm = None
        self.seen = ()  # the views that the last sample was made of
        self.netns = net.name
        self.tap = f"tap:{net.taps[number]},mac=00:15:5d:44:4d:{number:02x}"
        self.spare_tap = net.taps[number - len(net.taps) // 2]  # for a NIC more, if there are as many

    def fields(self):
        """What the VMs of all guests have in common."""
        session = self.session
        return {"name": f"bench-{self.name}-{os.getpid()}", "vcpus": session.vcpus, "memory": session.memory,
                "nics": [self.tap], "netns": self.netns, "count": session.count, "profile": session.profile,
                "nic_opts": [f"queues={session.vcpus}", f"rsc={'on' if session.rsc else 'off'}"]}

    def stop(self):
        """Ends the VM, if there is one."""
        if self.vm:
            self.vm.stop()

    def check_running(self):
        """HvError with the end of the console if the VM has ended by itself."""
        if not self.vm.running():
            raise HvError(f"the {self.name} VM has ended ({self.vm.wait_exit(1)})\n"
                          f"{self.vm.console_tail()}")

    def congestion(self, algorithm):
        """Chooses how the guest's TCP reacts to loss, if it has a choice."""

    def expect_nic(self):
        """Another NIC is about to come, which is to be configured by DHCP."""


class Dunlin(Guest):
    """What this project is about."""
    one_off_server = False

    def start(self):
        """Boots without waiting."""
        conf = BUILD / "bench" / f"{self.name}-{self.number}.conf"
        conf.parent.mkdir(parents=True, exist_ok=True)
        conf.write_text(CONF.format(address=self.address), encoding="ascii")
        self.vm = Vm.start(Spec(efi=BUILD / "BOOTX64.EFI", config=conf,
                                marks=self.session.marks, **self.fields()))

    def wait(self, timeout):
        """Until it serves."""
        self.vm.wait_console(READY, timeout)

    def stats(self):
        """The guest's own statistics."""
        line = self.vm.command("stats", r"^dunlin: stats: (\{.*\})$", 20)[1]
        return json.loads(line)

    def datagrams(self):
        """How many its discard service has received."""
        return self.stats()["discard"]["datagrams"]


class LinuxGuest(Guest):
    """Debian's Linux with iperf3 and tests/reference/peer.c; `tuned` or with its defaults."""
    one_off_server = True

    def __init__(self, name, number, net, session, tuned):
        super().__init__(name, number, net, session)
        self.tuned = tuned
        self.linux = None

    def start(self):
        """Boots without waiting."""
        append = f"net={self.address}/24 peer=on"
        if self.tuned:
            append += f" {TUNED}"
            # Where instructions are counted, a string instruction is one: the fewest for Linux.
            append += "" if self.session.count else f" {PLAIN_COPIES}"
        self.vm = Vm.start(Spec(**spec_fields(append, **self.fields())))

    def wait(self, timeout):
        """Until it serves and is tuned."""
        self.linux = Linux(self.vm, timeout)
        self._check("dmesg -n 1")  # nothing between the answers
        self._check("until netstat -ltn | grep -q ':7 '; do sleep 0.1; done")
        if self.tuned:
            self._tune()

    def _check(self, command):
        """Runs a shell command; HvError if it fails."""
        try:
            return self.linux.check(command)
        except CommandFailed as error:
            raise HvError(str(error)) from error

    def _tune(self):
        """As many channels as vCPUs, each channel's interrupts on a vCPU of its own, busy polling
        off, and buffers that do not limit a connection."""
        vcpus = self.session.vcpus
        check = self._check
        if vcpus > 1:
            check(f"ethtool -L eth0 combined {vcpus} 2>/dev/null || "
                  f"ethtool -l eth0 | grep -q 'Combined:.*{vcpus}'")
            check("sleep 1; cd /sys/class/net/eth0/device/channels; n=0; for c in $(ls | sort -n); "
                  f"do echo $n >$c/cpu 2>/dev/null; n=$(((n + 1) % {vcpus})); done")
            check(f"ip link set eth0 up; ip address replace {self.address}/24 dev eth0")
        check("sysctl -w net.core.busy_poll=0 net.core.busy_read=0 net.core.rmem_max=67108864 "
              "net.core.wmem_max=67108864 net.core.netdev_max_backlog=10000 "
              "'net.ipv4.tcp_rmem=4096 1048576 67108864' 'net.ipv4.tcp_wmem=4096 1048576 67108864'")

    def datagrams(self):
        """How many the discard service has received."""
        return json.loads(self._check("peer stats"))["datagrams"]

    def expect_nic(self):
        """What a Linux without a network manager needs: wait for the interface, then DHCP."""
        self._check("sysctl -qw net.ipv6.conf.default.disable_ipv6=1; (peer await eth1; "
                    "ip link set eth1 up; exec udhcpc -q -n -t 20 -T 1 -i eth1 -s /etc/udhcpc.script) "
                    "</dev/null >/dev/null 2>&1 & sleep 0.2")

    def congestion(self, algorithm):
        self._check(f"sysctl -w net.ipv4.tcp_congestion_control={algorithm}")


def make(name, number, net, session):
    """A guest by its name, not started."""
    if name == "dunlin":
        return Dunlin(name, number, net, session)
    return LinuxGuest(name, number, net, session, tuned=name == "linux-tuned")


class Session:
    """Virtual machines of one size with one set of offloads, one for each guest; ended with the
    `with` block. count: they count instructions and are slower for it."""

    def __init__(self, names, net, options, vcpus, rsc=True, count=False, marks=(),
                 profile=False):
        self.vcpus = vcpus
        self.rsc = rsc
        self.count = count
        self.marks = list(marks)
        self.profile = profile
        self.congestion = None  # of this machine, when it sends: its default
        self.memory = options.memory
        self.timeout = options.boot_timeout
        self.guests = {name: make(name, number, net, self) for number, name in enumerate(names)}

    def __enter__(self):
        try:
            # One after the other: together they would only be slower.
            for guest in self.guests.values():
                guest.start()
                guest.wait(self.timeout)
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *_):
        self.close()

    def close(self):
        """Ends all."""
        for guest in self.guests.values():
            guest.stop()

    def violations(self):
        """Rules of Hyper-V that a guest broke."""
        return [f"{name}: {line}" for name, guest in self.guests.items() if guest.vm
                for line in guest.vm.violations()]
