# SPDX-License-Identifier: BSD-2-Clause
"""What the samples come to: medians and their spread, the ratios to tuned Linux, and whether the
project's targets are met. No measuring here, so that tests can feed it."""

import dataclasses
import statistics

from .cases import SPREAD_STREAMS, SPREAD_VCPUS, Case

DUNLIN, TUNED = "dunlin", "linux-tuned"
# The measure by which a workload is judged, and whether more of it is better.
MAIN = {"tcp": ("gbit_s", True), "loss": ("gbit_s", True), "udp": ("packets_s", True),
        "echo": ("requests_s", True), "rtt": ("p50_us", False), "idle": ("cpu_percent", False),
        "nic": ("served_ms", False)}


@dataclasses.dataclass
class Sample:
    """One run. `counted`: with the plugin that counts instructions, so its rate is not used."""
    case: Case
    guest: str
    counted: bool
    values: dict


def summarize(numbers):
    """Median and spread of some numbers."""
    return {"median": statistics.median(numbers), "min": min(numbers), "max": max(numbers),
            "n": len(numbers)}


def rows(samples):
    """{(case, guest): {measure: summary}}. Instructions are those of counting runs, everything else
    is of the others."""
    grouped = {}
    for sample in samples:
        for measure, value in sample.values.items():
            if sample.counted == (measure in ("instructions", "repetitions")):
                row = grouped.setdefault((sample.case, sample.guest), {})
                row.setdefault(measure, []).append(value)
    return {key: {measure: summarize(numbers) for measure, numbers in row.items()}
            for key, row in grouped.items()}


def better(table, case, measure, more):
    """How many times better Dunlin is than tuned Linux, by the medians; None if it is not known."""
    try:
        ours = table[case, DUNLIN][measure]["median"]
        theirs = table[case, TUNED][measure]["median"]
    except KeyError:
        return None
    if more:
        return ours / theirs if theirs else None
    return theirs / ours if ours else None


def worst(values):
    """The least of those that are known."""
    known = [v for v in values if v is not None]
    return min(known) if known else None


def ratios(table):
    """The ratios that have a target: all are "how many times better". One stream, one vCPU."""
    def tcp(direction, rsc):
        return Case("tcp", 1, rsc, direction, 1)

    def rate(direction, rsc):
        return better(table, tcp(direction, rsc), "gbit_s", True)

    def less(direction, measure):
        return better(table, tcp(direction, True), measure, False)

    return {
        "tcp_rx_1vcpu_rsc": rate("in", True), "tcp_tx_1vcpu_rsc": rate("out", True),
        "tcp_rx_1vcpu": rate("in", False), "tcp_tx_1vcpu": rate("out", False),
        "instr_rx_per_mb": less("in", "instructions"),
        "instr_tx_per_mb": less("out", "instructions"),
        "host_events_per_mb": worst([less("in", "events"), less("out", "events")]),
        "udp_rx_pps": better(table, Case("udp"), "packets_s", True),
        "echo_rps": better(table, Case("echo"), "requests_s", True),
        "rtt_p50": better(table, Case("rtt"), "p50_us", False),
        "nic_add_lease": better(table, Case("nic"), "lease_ms", False),
        "nic_add_served": better(table, Case("nic"), "served_ms", False),
        "nic_remove": better(table, Case("nic"), "gone_ms", False),
    }


def absolutes(table, machine):
    """Numbers of Dunlin that have a target of their own. machine: what guest and image are like
    before anything is asked of them."""
    spreads = [table.get((Case("tcp", SPREAD_VCPUS, True, d, SPREAD_STREAMS), DUNLIN), {})
               .get("spread", {}).get("median") for d in ("in", "out")]
    known = [s for s in spreads if s is not None]
    return {"load_spread_8vcpu": max(known) if known else None,
            "boot_ms": machine.get("boot_ms"), "efi_bytes": machine.get("efi_bytes"),
            "idle_memory_mib": machine.get("idle_memory_mib")}


AT_LEAST = {"tcp_rx_1vcpu_rsc": 5, "tcp_tx_1vcpu_rsc": 4, "tcp_rx_1vcpu": 3, "tcp_tx_1vcpu": 4,
            "instr_rx_per_mb": 10, "instr_tx_per_mb": 8, "host_events_per_mb": 2,
            "udp_rx_pps": 4, "echo_rps": 4, "rtt_p50": 2,
            "nic_add_lease": 2, "nic_add_served": 2, "nic_remove": 2}
AT_MOST = {"load_spread_8vcpu": 1.3, "boot_ms": 100, "efi_bytes": 1 << 20, "idle_memory_mib": 24}


def verdicts(found):
    """[(key, value or None, limit, "PASS", "MISS" or "-")], in the order of the targets."""
    lines = []
    for limits, met in ((AT_LEAST, lambda v, limit: v >= limit),
                        (AT_MOST, lambda v, limit: v <= limit)):
        for key, limit in limits.items():
            value = found.get(key)
            word = "-" if value is None else "PASS" if met(value, limit) else "MISS"
            lines.append((key, value, limit, word))
    return lines
