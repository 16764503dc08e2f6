# SPDX-License-Identifier: BSD-2-Clause
"""The iperf3 service over several cores, in turns on one thread: a test's streams and its control
connection live anywhere."""

import json
import subprocess
import time

import pytest

from program import SERVER, Native, build

CORES = 4


@pytest.fixture(scope="module", autouse=True)
def program():
    build()


@pytest.fixture(scope="module")
def server(program):
    n = Native("--cores", CORES, "--offload")
    n.wait_log(rb"address fe80::")  # a second after the start, and takes memory
    yield n
    n.close()


@pytest.fixture
def native(server):
    server.iperf3("-n", "1M", "-P", "8")  # fills what is filled once
    server.wait_objects(CORES * 60, 20)
    before = server.objects()
    yield server
    server.wait_objects(before + 4 * CORES, 20)  # neighbours and such on cores that had none


@pytest.mark.parametrize("options", [
    ["-P", "8"], ["-P", "8", "-R"], ["-P", "4", "--bidir"], ["-P", "128"], ["-P", "4", "-O", "1"],
    ["-P", "4", "-R", "-b", "20M"], ["-u", "-P", "8", "-b", "2M"], ["-u", "-P", "8", "-b", "2M", "-R"]
], ids=" ".join)
def test_streams(native, options):
    """Each stream is on one core, all move data, and the results are put to the right ones."""
    start = len(native.log)
    report = native.iperf3("-t", "2", *options)
    assert "error" not in report, report["error"]
    count = int(options[options.index("-P") + 1]) * (2 if "--bidir" in options else 1)
    streams = report["end"]["streams"]
    assert len(streams) == count
    for stream in streams:
        if "-u" in options:
            assert stream["udp"]["packets"] > 100 and stream["udp"]["lost_percent"] < 50, stream
        elif count <= 8 and "-R" not in options:
            sent, received = stream["sender"]["bytes"], stream["receiver"]["bytes"]
            assert received > 0, stream
            if "-O" not in options:  # each side leaves out the first second by its own clock
                assert received <= sent, stream
                assert sent - received <= sent / 20 or not stream["sender"]["sender"], stream
        else:
            assert stream["receiver"]["bytes"] > 0, stream
    counts = native.wait_log(rb"streams of each core, Mbit/s: (.*)\n", start=start)[1].split(b", ")
    assert sum(int(core.split()[1]) for core in counts) == count
    assert len(counts) > 1


def test_one_after_the_other(native):
    for options in (["-P", "3"], ["-R"], ["-u", "-b", "10M"]) * 10:
        report = native.iperf3("-n", "64K", *options)
        assert "error" not in report, report["error"]


def test_second_client_is_denied_on_any_core(native):
    start = len(native.log)
    first = subprocess.Popen([*native.inside, "iperf3", "-c", SERVER, "-t", "4", "-J"],
                             stdout=subprocess.PIPE)
    native.wait_log(rb"test of \S+, iperf 3", start=start)
    denied = 0
    while denied < 10 and first.poll() is None:
        report = native.iperf3("-n", "64K")
        if "error" not in report:
            break  # the first was over
        assert "busy running a test" in report["error"]
        denied += 1
    assert denied
    assert "error" not in json.loads(first.communicate(timeout=20)[0])


@pytest.mark.parametrize("options", [["-P", "16"], ["-P", "16", "-R"], ["-u", "-P", "8"]],
                         ids=" ".join)
def test_killed_client(native, options):
    """What it leaves on all cores is given back, and the next one is served at once."""
    start = len(native.log)
    client = subprocess.Popen([*native.inside, "iperf3", "-c", SERVER, "-t", "30", *options],
                              stdout=subprocess.DEVNULL)
    native.wait_log(rb"test of \S+, iperf 3", start=start)
    time.sleep(1)
    client.kill()
    client.wait()
    native.wait_log(rb"given up: ", start=start)
    assert "error" not in native.iperf3("-n", "64K")
