# SPDX-License-Identifier: BSD-2-Clause
"""A NIC is added to a guest that runs, gets a lease, serves its first connection, and is removed: how
long each takes, by the clock of this machine and in the same way for all guests."""

import re
import socket
import time

from hvlib import HvError, nic
from hvlib.sockets import Qmp

NAME = "nic1"
TIMEOUT = 30
ATTEMPT = 0.005  # how long a connection may take before another is tried
QUIET = 0.3  # so that nothing is on its way when the NIC goes: Linux would wait for that for ever
MS = 1000


def _poll(found, what):
    """What found() returns as soon as that is true."""
    deadline = time.monotonic() + TIMEOUT
    while not (value := found()):
        if time.monotonic() > deadline:
            raise HvError(f"not in {TIMEOUT} s: {what}")
        time.sleep(0.001)
    return value


def _served(net, address, port):
    """One try to have a byte echoed."""
    with net.enter(socket.socket) as sock:
        sock.settimeout(ATTEMPT)
        try:
            sock.connect((address, port))
            sock.settimeout(TIMEOUT)
            sock.sendall(b"x")
            return sock.recv(1) == b"x"
        except OSError:
            return False


def _removed(vm):
    """Removes the NIC; returns the seconds until the guest had let go of it. (The host's event
    DEVICE_DELETED would come some 50 ms later, whatever the guest does.)"""
    def is_gone():
        return NAME not in [p["name"] for p in qmp.command("qom-list", path=nic.PERIPHERAL)]
    with Qmp(vm.folder / "qmp.sock") as qmp:
        start = time.time()
        qmp.command("device_del", id=NAME)
        _poll(is_gone, "the NIC's end")
        return time.time() - start


def cycle(guest, net, port):
    """Adds and removes the NIC once; returns the times. The peer knows the address from the cycle
    before, so that it does not wait a second with its next question for it."""
    tap = guest.spare_tap
    guest.expect_nic()
    mac = nic.mac_address(0x80 + guest.number)
    new = nic.prepare(guest.vm, f"tap:{tap}", NAME, [f"mac={mac}", *guest.fields()["nic_opts"]])
    leases = net.log().count("DHCPACK")
    start = time.time()
    nic.plug(guest.vm, new)
    log = _poll(lambda: (text := net.log()).count("DHCPACK") > leases and text, "a lease")
    lease = time.time()
    address = re.findall(rf"DHCPACK\({tap}\) (\S+)", log)[-1]
    _poll(lambda: _served(net, address, port), "a connection")
    served = time.time()
    net.run("ip", "neigh", "replace", address, "lladdr", mac, "dev", tap, "nud", "permanent")
    time.sleep(QUIET)
    gone = _removed(guest.vm)
    guest.vm.qmp("netdev_del", id=new.netdev_id)
    return {"lease_ms": (lease - start) * MS, "served_ms": (served - start) * MS,
            "gone_ms": gone * MS}
