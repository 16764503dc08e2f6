# SPDX-License-Identifier: BSD-2-Clause
"""tools/bench: what it makes of samples, what it refuses, and that every kind of measurement still
works. The numbers themselves are not judged here."""

import json
import subprocess
import sys
import xml.dom.minidom

import pytest

from support import ROOT, make

sys.path.insert(0, str(ROOT / "tools" / "bench"))

from benchlib import chart, report, results  # noqa: E402  pylint: disable=wrong-import-position
from benchlib.cases import Case  # noqa: E402  pylint: disable=wrong-import-position

GUESTS = ("dunlin", "linux-tuned")


def bench(*arguments):
    """Runs the benchmark; returns (exit status, all it printed)."""
    done = subprocess.run([ROOT / "tools/bench/bench", *map(str, arguments)], text=True,
                          check=False, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                          stderr=subprocess.STDOUT, timeout=600)
    return done.returncode, done.stdout


def samples(case, dunlin, linux, counted=False):
    """Samples of both guests: lists of what each run measured."""
    return [results.Sample(case, guest, counted, values)
            for guest, runs in zip(GUESTS, (dunlin, linux)) for values in runs]


def test_medians_and_ratios():
    receive, send = (Case("tcp", 1, True, way, 1) for way in ("in", "out"))
    table = results.rows(
        samples(receive, [{"gbit_s": n, "events": 2, "instructions": 9} for n in (10, 1, 6)],
                [{"gbit_s": n, "events": 8, "instructions": 9} for n in (2, 3, 1)])
        + samples(receive, [{"gbit_s": 0.1, "instructions": 100}],
                  [{"gbit_s": 9, "instructions": 1500}], counted=True)
        + samples(send, [{"gbit_s": 8, "events": 4}], [{"gbit_s": 4, "events": 6}])
        + samples(Case("rtt"), [{"p50_us": 30}], [{"p50_us": 90}]))
    assert table[receive, "dunlin"]["gbit_s"] == {"median": 6, "min": 1, "max": 10, "n": 3}
    ratios = results.ratios(table)
    assert ratios["tcp_rx_1vcpu_rsc"] == 3  # the rate of runs that count instructions is not used
    assert ratios["instr_rx_per_mb"] == 15  # nor instructions of those that do not
    assert ratios["tcp_tx_1vcpu_rsc"] == 2
    assert ratios["host_events_per_mb"] == 1.5  # the direction that is worse
    assert ratios["rtt_p50"] == 3
    assert ratios["tcp_rx_1vcpu"] is None and ratios["instr_tx_per_mb"] is None


def test_targets():
    table = results.rows(
        [results.Sample(Case("tcp", 8, True, way, 64), "dunlin", False, {"spread": spread})
         for way, spread in (("in", 1.1), ("out", 1.2))])
    found = results.absolutes(table, {"boot_ms": 120, "efi_bytes": 1000, "idle_memory_mib": 24})
    assert found["load_spread_8vcpu"] == 1.2
    words = {key: word for key, _, _, word in
             results.verdicts({**found, "tcp_rx_1vcpu": 3, "rtt_p50": 1.9})}
    assert words["load_spread_8vcpu"] == words["idle_memory_mib"] == words["efi_bytes"] == "PASS"
    assert words["boot_ms"] == words["rtt_p50"] == "MISS"
    assert words["tcp_rx_1vcpu"] == "PASS"
    assert words["udp_rx_pps"] == "-"
    assert len(words) == len(results.AT_LEAST) + len(results.AT_MOST)


def test_table_and_charts():
    case = Case("loss", 1, True, "out", 1, (10, 0.1, 0))
    table = results.rows(samples(case, [{"gbit_s": 1.5, "events": 3}], [{"gbit_s": 0.5}]))
    text = "\n".join(report.table(table))
    assert "TCP out, 1 stream, 10 ms, 0.1 % lost" in text and "3.00" in text
    drawing = xml.dom.minidom.parseString(chart.chart(table, "loss"))
    assert len(drawing.getElementsByTagName("line")) == 2
    assert chart.chart(table, "udp") is None


def test_bench_refuses():
    assert bench("--help")[0] == 0
    for arguments in (["--rounds", 0], ["--vcpus", "many"], ["--streams", "0"], ["--time", "-1"],
                      ["--workloads", "up"], ["--nonsense"]):
        status, output = bench(*arguments)
        assert status == 2 and "usage: tools/bench/bench" in output


@pytest.fixture(scope="module", autouse=True)
def load_generator():
    make("build/bench/load")


def test_both_guests(tmp_path):
    """A short run against both: they are measured, compared, and nothing is left behind."""
    status, text = bench("--quick", "--workloads", "tcp,udp,rtt,echo,nic", "--streams", 1, "--rsc", "on",
                         "--rounds", 1, "--time", 1, "--no-count", "--output", tmp_path)
    assert status == 0, text
    found = json.loads((tmp_path / "results.json").read_text())
    assert found["failures"] == []
    assert len(found["samples"]) == 6 * len(GUESTS)
    for key in ("tcp_rx_1vcpu_rsc", "tcp_tx_1vcpu_rsc", "udp_rx_pps", "echo_rps", "rtt_p50",
                "nic_add_lease", "nic_add_served", "nic_remove"):
        assert found["ratios"][key] > 0
    assert {p.name for p in tmp_path.glob("*.svg")} == {f"{name}.svg" for name in
                                                        ("tcp", "udp", "rtt", "echo", "nic")}
    assert "dunlin-bench" not in subprocess.run(["ip", "netns", "list"], capture_output=True,
                                                text=True, check=True).stdout


def test_dunlin_alone(tmp_path):
    """Instructions, and what is measured of Dunlin itself."""
    status, text = bench("--vcpus", 1, "--guests", "dunlin", "--workloads", "rtt,boot", "--rsc",
                         "on", "--rounds", 1, "--time", 1, "--output", tmp_path)
    assert status == 0, text
    found = json.loads((tmp_path / "results.json").read_text())
    counted, = [row for row in found["rows"] if "instructions" in row["measures"]]
    assert 100 < counted["measures"]["instructions"]["median"] < 1_000_000
    assert found["dunlin"]["boot_instructions"] > 10_000
    assert 0 < found["absolutes"]["idle_memory_mib"] < 128
    assert found["absolutes"]["boot_ms"] > 1
