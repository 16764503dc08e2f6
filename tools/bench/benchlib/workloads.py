# SPDX-License-Identifier: BSD-2-Clause
"""Runs one case against one guest and returns what was measured: a rate or a time, and what it cost
for each MB (10^6 bytes of payload), packet or request."""

import json
import subprocess
import time

from hvlib import BUILD, HvError, iperf, wire

from . import hotplug, observe
from .cases import ECHO_CONNECTIONS, ROUND_TRIP_BYTES, SMALL_BYTES, UDP_FLOWS
from .guests import DISCARD_PORT, ECHO_PORT

LOAD = BUILD / "bench" / "load"
MB = 1e6
# How the offered load of datagrams is found: doubled until so much of it is lost.
FIRST_RATE = 20_000
HIGHEST_RATE = 1_300_000
LOST_ENOUGH = 0.3
OVERLOAD = 1.5
ENOUGH = 0.9  # a guest that receives more of what is offered could take more


def load(net, *arguments, seconds):
    """Runs the load generator in the namespace; returns what it prints."""
    command = net.command(LOAD, *arguments)
    try:
        done = subprocess.run(command, text=True, check=False, timeout=seconds * 2 + 30,
                              stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                              stderr=subprocess.PIPE)
    except subprocess.TimeoutExpired as error:
        raise HvError(f"the load generator did not end: {arguments}") from error
    if done.returncode:
        raise HvError(f"load {' '.join(map(str, arguments))}: {done.stderr.strip()}")
    return json.loads(done.stdout)


def transfer(guest, case, net, seconds):
    """iperf3 over TCP."""
    inward = case.direction == "in"
    chosen = ["-C", guest.session.congestion] if inward and guest.session.congestion else []
    before = observe.view(guest)
    report = iperf.client(guest.address, "-t", seconds, "-P", case.streams,
                          *([] if inward else ["-R"]), *chosen, prefix=net.command(),
                          timeout=seconds * 3 + 30, one_off_server=guest.one_off_server)
    after = observe.view(guest)
    if not report.received_bytes:
        raise HvError("nothing arrived")
    megabytes = report.received_bytes / MB
    return {"gbit_s": report.gbit_s, "megabytes": megabytes,
            "stalled_intervals": report.intervals.count(0), "retransmits": report.retransmits,
            **observe.costs(guest, before, after, megabytes, case.direction)}


def lossy_transfer(guest, case, net, seconds):
    """The same over a bad wire, of which each direction has half the delay and all of the loss."""
    delay, loss, reorder = case.wire
    wire.impair(guest.vm, delay=delay / 2, loss=loss, reorder=reorder)
    try:
        return transfer(guest, case, net, seconds)
    finally:
        wire.off(guest.vm)


def _datagrams_in(guest, net, rate, seconds):
    """Offers so many datagrams a second; returns what was sent, how many were received, and what was
    seen before and after. (To ask the guest is work for it, too, that is not to be counted.)"""
    known = guest.datagrams()
    time.sleep(0.3)  # until its consoles have shown what it was asked
    before = observe.view(guest)
    sent = load(net, "udp", guest.address, DISCARD_PORT, seconds, SMALL_BYTES, UDP_FLOWS, rate,
                seconds=seconds)
    time.sleep(0.2)  # what is on the way arrives
    after = observe.view(guest)
    return sent, guest.datagrams() - known, before, after


def _overload(guest, net):
    """A rate of datagrams that is well above what the guest takes."""
    rate = FIRST_RATE
    while True:
        sent, received, _, _ = _datagrams_in(guest, net, rate, 1)
        offered = sent["sent"] + sent["refused"]
        if received < (1 - LOST_ENOUGH) * offered or rate >= HIGHEST_RATE:
            return min(rate, max(int(received * OVERLOAD), FIRST_RATE))
        rate *= 2


def datagrams(guest, _, net, seconds):
    """Datagrams that the guest's service receives when more are offered. The rate is sought once,
    and raised when it is not enough."""
    if not hasattr(guest, "overload"):
        guest.overload = _overload(guest, net)
    while True:
        sent, received, before, after = _datagrams_in(guest, net, guest.overload, seconds)
        offered = sent["sent"] + sent["refused"]
        if received < ENOUGH * offered or offered < ENOUGH * guest.overload * seconds:
            break  # more came than it took, or the generator cannot do more
        guest.overload = int(guest.overload * OVERLOAD)  # found when the machine was busy
    if not received:
        raise HvError("no datagram arrived")
    return {"packets_s": received / sent["seconds"], "offered_s": sent["sent"] / sent["seconds"],
            **observe.costs(guest, before, after, received, "in")}


def _requests(guest, net, seconds, size, connections):
    before = observe.view(guest)
    done = load(net, "echo", guest.address, ECHO_PORT, seconds, size, connections, seconds=seconds)
    after = observe.view(guest)
    return {"requests_s": done["requests"] / done["seconds"], "p50_us": done["p50_us"],
            "p99_us": done["p99_us"], "client_cpu": done["cpu_seconds"] / done["seconds"],
            **observe.costs(guest, before, after, done["requests"], "in")}


def echo(guest, _, net, seconds):
    """Small requests on many connections."""
    return _requests(guest, net, seconds, SMALL_BYTES, ECHO_CONNECTIONS)


def round_trip(guest, _, net, seconds):
    """The smallest request, alone."""
    return _requests(guest, net, seconds, ROUND_TRIP_BYTES, 1)


def idle(guest, _, __, seconds):
    """What a guest that is asked nothing takes of a CPU."""
    before = observe.view(guest)
    time.sleep(seconds)
    after = observe.view(guest)
    cost = observe.costs(guest, before, after, seconds, "in")
    return {"cpu_percent": cost["vcpu_us"] / 1e4, **cost}


def plugged(guest, _, net, __):
    """A NIC comes and goes. The first time is for getting to know each other."""
    if not hasattr(guest, "knows_nic"):
        hotplug.cycle(guest, net, ECHO_PORT)
        guest.knows_nic = True
    return hotplug.cycle(guest, net, ECHO_PORT)


RUN = {"idle": idle, "tcp": transfer, "loss": lossy_transfer, "udp": datagrams,
       "echo": echo, "rtt": round_trip, "nic": plugged}


def run(guest, case, net, seconds):
    """One sample: a dict of numbers."""
    guest.check_running()
    return RUN[case.workload](guest, case, net, seconds)
