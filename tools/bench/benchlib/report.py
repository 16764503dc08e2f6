# SPDX-License-Identifier: BSD-2-Clause
"""Results for people: the table on the terminal."""

from . import results

# Of each workload: (measure, column's title, format). The first is what it is about.
COSTS = [("instructions", "instr.", ",.0f"), ("hypercalls", "hypercalls", ".2f"),
         ("signals", "signals", ".2f"), ("interrupts", "interrupts", ".2f"),
         ("vcpu_us", "vCPU us", ",.1f"), ("vcpu_busy", "vCPUs %", ".0f"),
         ("host_busy", "host %", ".0f"), ("spread", "max/mean", ".2f"),
         ("sections_peak", "sections", ".0f")]
COLUMNS = {
    "tcp": ("per MB", [("gbit_s", "Gbit/s", ".3f"), *COSTS]),
    "loss": ("per MB", [("gbit_s", "Gbit/s", ".3f"), *COSTS]),
    "udp": ("per packet", [("packets_s", "packets/s", ",.0f"), *COSTS]),
    "echo": ("per request", [("requests_s", "requests/s", ",.0f"), ("p50_us", "p50 us", ",.0f"),
                             ("p99_us", "p99 us", ",.0f"), *COSTS]),
    "rtt": ("per request", [("p50_us", "p50 us", ",.0f"), ("p99_us", "p99 us", ",.0f"),
                            ("requests_s", "requests/s", ",.0f"), *COSTS]),
    "idle": ("per second", [("cpu_percent", "% of a CPU", ".2f"), *COSTS]),
    "nic": ("not shown", [("served_ms", "served ms", ",.1f"), ("lease_ms", "lease ms", ",.1f"),
                              ("gone_ms", "gone ms", ",.1f")]),
}
WIDTH = 12


def _cases(rows):
    """The cases, those of a workload together, as the benchmark went through them otherwise."""
    order = list(results.MAIN)
    return sorted(dict.fromkeys(case for case, _ in rows), key=lambda c: order.index(c.workload))


def _cell(row, measure, style):
    return f"{row[measure]['median']:{style}}" if measure in row else "-"


def _spread(row, measure):
    """How far a median can be trusted: the range of the samples, in percent of it."""
    if measure not in row or not row[measure]["median"]:
        return "-"
    summary = row[measure]
    low, high = (round(100 * (summary[end] / summary["median"] - 1)) for end in ("min", "max"))
    return f"{low:+}..{high:+}%"


def table(rows):
    """The lines of the table: one for each guest of each case, and Dunlin's ratio to tuned Linux."""
    lines = []
    workload = None
    guests = list(dict.fromkeys(guest for _, guest in rows))
    for case in _cases(rows):
        unit, columns = COLUMNS[case.workload]
        if case.workload != workload:
            workload = case.workload
            lines += ["", f"medians; costs are {unit}", "".join(
                [f"{'':14}", *(f"{title:>{WIDTH}}" for _, title, _ in columns), f"{'range':>14}"])]
        lines.append(str(case))
        for guest in guests:
            row = rows.get((case, guest))
            if row:
                cells = [f"{_cell(row, measure, style):>{WIDTH}}" for measure, _, style in columns]
                lines.append(f"  {guest:12}" + "".join(cells)
                             + f"{_spread(row, columns[0][0]):>14}")
        times = results.better(rows, case, *results.MAIN[case.workload])
        if times is not None:
            lines.append(f"  {'ratio':12}{times:{WIDTH}.2f}")
    return lines


def alone(dunlin):
    """What was measured of Dunlin without any load."""
    if not dunlin:
        return []
    return ["", f"Dunlin from the kernel's entry to listening: {dunlin['boot_ms']:.0f} ms, "
            f"{dunlin['boot_instructions']:,.0f} instructions",
            f"BOOTX64.EFI: {dunlin['efi_bytes']:,} bytes; memory in use on 1 vCPU: "
            f"{dunlin['idle_memory_mib']:.1f} MiB idle, {dunlin['receiving_memory_mib']:.1f} MiB "
            f"receiving and {dunlin['sending_memory_mib']:.1f} MiB sending 16 streams"]


def targets(found):
    """The lines about targets."""
    lines = ["", "Dunlin beside tuned Linux, how many times better (one stream, one vCPU)"]
    for key, value, limit, word in results.verdicts(found):
        bound = ">=" if key in results.AT_LEAST else "<="
        shown = "not measured" if value is None else f"{value:,.2f}"
        lines.append(f"  {key:20}{shown:>16}  {bound} {limit:<10,g}{word}")
    return lines


def _number(value):
    """Three significant digits, no exponent."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def markdown(rows):
    """The main measure of each case for every guest, and the ratio, as Markdown tables."""
    lines = []
    guests = list(dict.fromkeys(guest for _, guest in rows))
    workload = None
    for case in _cases(rows):
        measure, _ = results.MAIN[case.workload]
        _, columns = COLUMNS[case.workload]
        if case.workload != workload:
            workload = case.workload
            title = dict((m, t) for m, t, _ in columns)[measure]
            lines += ["", f"| {workload}, {title} | " + " | ".join(guests) + " | ratio |",
                      "|---|" + "---|" * (len(guests) + 1)]
        cells = [_number(rows[case, g][measure]["median"]) if measure in rows.get((case, g), {})
                 else "-" for g in guests]
        times = results.better(rows, case, *results.MAIN[workload])
        lines.append(f"| {case} | " + " | ".join(cells)
                     + f" | {'-' if times is None else f'{times:.2f}'} |")
    return lines
