# SPDX-License-Identifier: BSD-2-Clause
"""One SVG for each workload: a bar for each guest of each case, with the range of its samples."""

from xml.sax.saxutils import escape

from . import results

COLORS = {"dunlin": "#1b6ca8", "linux-tuned": "#e08e2b", "linux-reno": "#b0652a",
          "linux": "#9a9a9a"}
TITLES = {"gbit_s": "Gbit/s", "packets_s": "packets/s", "requests_s": "requests/s",
          "p50_us": "microseconds, less is better",
          "cpu_percent": "% of a CPU, less is better",
          "served_ms": "milliseconds until the new NIC is served, less is better"}
BAR, GAP, LABEL, LENGTH, HEAD = 14, 14, 330, 520, 58


def _text(x, y, text, anchor="start", size=12, weight="normal"):
    return (f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" font-size="{size}" '
            f'font-weight="{weight}">{escape(text)}</text>')


def _bar(x, y, summary, scale, color):
    """A bar as long as the median, a thin line from the least to the largest sample."""
    middle = y + BAR / 2 - 1
    low, high = x + summary["min"] * scale, x + summary["max"] * scale
    return [f'<rect x="{x}" y="{y}" width="{summary["median"] * scale:.1f}" height="{BAR - 2}" '
            f'fill="{color}"/>',
            f'<line x1="{low:.1f}" x2="{high:.1f}" y1="{middle}" y2="{middle}" stroke="#222"/>',
            _text(high + 6, y + BAR - 4, f"{summary['median']:,.4g}", size=11)]


def chart(rows, workload):
    """The chart of a workload as text, None if it was not measured."""
    measure, _ = results.MAIN[workload]
    rows = {key: row for key, row in rows.items() if key[0].workload == workload and measure in row}
    if not rows:
        return None
    cases = list(dict.fromkeys(case for case, _ in rows))
    guests = [g for g in COLORS if any(guest == g for _, guest in rows)]
    scale = LENGTH / (max(row[measure]["max"] for row in rows.values()) or 1)
    parts = [_text(10, 22, f"{workload}: {TITLES[measure]}", size=15, weight="bold")]
    for number, guest in enumerate(guests):
        x = LABEL + number * 120
        parts += [f'<rect x="{x}" y="34" width="10" height="10" fill="{COLORS[guest]}"/>',
                  _text(x + 15, 43, guest)]
    y = HEAD
    for case in cases:
        shown = [g for g in guests if (case, g) in rows]
        parts.append(_text(LABEL - 8, y + BAR * len(shown) / 2 + 4, str(case), "end", 11))
        for guest in shown:
            parts += _bar(LABEL, y, rows[case, guest][measure], scale, COLORS[guest])
            y += BAR
        y += GAP
    width = LABEL + LENGTH + 80
    return (f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{y}" '
            f'font-family="sans-serif"><rect width="100%" height="100%" fill="white"/>'
            + "\n".join(parts) + "</svg>\n")
