# SPDX-License-Identifier: BSD-2-Clause
"""What the benchmark measures: one Case is one row of the table."""

import dataclasses

ROUND_TRIP_BYTES = 1
SMALL_BYTES = 64  # payload of a datagram, and of a request
ECHO_CONNECTIONS = 64
UDP_FLOWS = 32
STREAMS = (1, 16)
SPREAD_STREAMS = 64  # on the largest machine: is every core used alike?
SPREAD_VCPUS = 8
NIC_VCPUS = (1, 4)
# Milliseconds of round trip, percent lost and percent reordered, each way.
WIRES = ((10, 0.1, 0), (10, 1, 0), (50, 0.1, 0), (50, 1, 0), (10, 0, 1))


@dataclasses.dataclass(frozen=True)
class Case:
    """One kind of measurement. `direction` is as the guest sees it: it receives (in), sends (out)."""
    workload: str  # tcp, loss, udp, echo, rtt, idle, nic
    vcpus: int = 1
    rsc: bool = True  # the host may coalesce what the guest receives
    direction: str = "in"
    streams: int = 1
    wire: tuple = ()  # of loss: one of WIRES

    @property
    def label(self):
        """What it is, but for the size of the machine and RSC."""
        streams = f"{self.streams} stream" + "s" * (self.streams > 1)
        if self.workload == "tcp":
            return f"TCP {self.direction}, {streams}"
        if self.workload == "loss":
            delay, loss, reorder = self.wire
            bad = f"{loss:g} % lost" if loss else f"{reorder:g} % reordered"
            return f"TCP {self.direction}, {streams}, {delay} ms, {bad}"
        return {"udp": f"UDP in, {SMALL_BYTES} B datagrams",
                "echo": f"TCP echo, {SMALL_BYTES} B on {ECHO_CONNECTIONS} connections",
                "rtt": f"TCP echo, {ROUND_TRIP_BYTES} B on 1 connection",
                "idle": "nothing to do", "nic": "NIC added and removed"}[self.workload]

    def __str__(self):
        return f"{self.vcpus} vCPU, RSC {'on' if self.rsc else 'off'}, {self.label}"


def tcp(vcpus, rsc, streams, directions=("in", "out")):
    """Bulk transfer."""
    return [Case("tcp", vcpus, rsc, direction, count)
            for count in streams for direction in directions]


def small(vcpus):
    """Small packets and none at all; RSC does not matter for them."""
    return [Case(workload, vcpus) for workload in ("idle", "udp", "rtt", "echo")]


def lossy():
    """One stream over bad wires, one vCPU."""
    return [Case("loss", 1, True, direction, 1, wire) for wire in WIRES
            for direction in ("in", "out")]


def sessions(options):
    """What is measured with the same virtual machines: [(vcpus, rsc, cases)]."""
    found = []
    for vcpus in options.vcpus:
        for rsc in options.rsc:
            cases = []
            if "tcp" in options.workloads:
                cases += tcp(vcpus, rsc, options.streams)
                if vcpus == SPREAD_VCPUS and rsc and SPREAD_STREAMS not in options.streams:
                    cases += tcp(vcpus, rsc, (SPREAD_STREAMS,))
            if rsc:
                cases += [case for case in small(vcpus) if case.workload in options.workloads]
            if rsc and "nic" in options.workloads and vcpus in NIC_VCPUS:
                cases.append(Case("nic", vcpus))
            if "loss" in options.workloads and vcpus == 1 and rsc:
                cases += lossy()
            if cases:
                found.append((vcpus, rsc, cases))
    return found
