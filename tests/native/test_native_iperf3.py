# SPDX-License-Identifier: BSD-2-Clause
"""The network stack and the iperf3 service, built for Linux with sanitizers, on a TAP device in a
network namespace, against the stock iperf3 client and against clients that misbehave.

After each test the program must still run and hold no more memory than before: nothing may leak and
nothing of a test may stay."""

import fcntl
import json
import os
import random
import re
import signal
import socket
import struct
import subprocess
import termios
import time

import pytest

import program
from icmp import check_ping
from packets import frame, raw_socket, segment
from program import HERE, PORT, SERVER, Native, run
from support import check_totals, wait_for

COOKIE = b"a" * 36 + b"\0"
PARAM_EXCHANGE, CREATE_STREAMS, TEST_START, TEST_RUNNING = 9, 10, 1, 2
TEST_END, EXCHANGE_RESULTS, DISPLAY_RESULTS, IPERF_DONE = 4, 13, 14, 16
ACCESS_DENIED, SERVER_ERROR = 0xff, 0xfe


@pytest.fixture(scope="module", autouse=True)
def build():
    program.build()


@pytest.fixture(scope="module")
def server(build):
    """One program for all tests of this file: what one leaves behind the next would find."""
    native = Native("--offload")
    native.wait_log(rb"address fe80::")  # a second after the start, and takes memory
    yield native
    native.close()


@pytest.fixture
def native(server):
    server.iperf3("-n", "1M")  # fills what is filled once: the neighbour's address and the like
    server.wait_objects(96, 10)
    before = server.objects()
    yield server
    server.wait_objects(before, 10)


def totals(report):
    """(bytes sent, bytes received), as both sides counted."""
    assert "error" not in report, report["error"]
    return report["end"]["sum_sent"]["bytes"], report["end"]["sum_received"]["bytes"]


def check(report, part=0.01):
    """What the two sides say fits together, and no second passed without data."""
    test = report["start"]["test_start"]
    check_totals(*totals(report), test["num_streams"],
                 report["carried"] if test["reverse"] else None, part)
    assert report["intervals"]
    for interval in report["intervals"]:
        if interval["sum"]["seconds"] > 0.5:
            assert interval["sum"]["bytes"] > 0, interval["sum"]


@pytest.mark.parametrize("options", [
    ["-t", "2"], ["-t", "2", "-R"], ["-t", "2", "-P", "8"], ["-t", "2", "-P", "8", "-R"],
    ["-t", "2", "-P", "128"], ["-t", "2", "-P", "128", "-R"], ["-t", "2", "--bidir"],
    ["-t", "2", "--bidir", "-P", "4"], ["-t", "2", "-w", "60K"], ["-t", "2", "-w", "60K", "-R"],
    ["-t", "2", "-w", "300K"], ["-t", "1", "-w", "1K"], ["-t", "1", "-w", "4K"], ["-t", "2", "-M", "600"], ["-t", "2", "-M", "600", "-R"],
    ["-t", "2", "-M", "88", "-R"], ["-t", "2", "-l", "1K"], ["-t", "2", "-l", "1M", "-R"],
    ["-t", "2", "-N"], ["-t", "2", "-i", "0.5", "-R"], ["-t", "2", "-Z"],
    ["-t", "2", "--get-server-output"], ["-t", "2", "-C", "cubic", "-P", "2"],
], ids=" ".join)
def test_stock_client(native, options):
    # 128 senders overrun the queue of the TAP device; some then wait for longer than we do.
    check(native.iperf3(*options), 0.05 if "128" in options else 0.01)


@pytest.mark.parametrize("options", [
    ["-n", "64M"], ["-n", "64M", "-R"], ["-n", "64M", "-P", "4"], ["-k", "500"],
    ["-k", "500", "-R"], ["-n", "1"], ["-n", "1", "-R"],
], ids=" ".join)
def test_ends_by_bytes_or_blocks(native, options):
    report = native.iperf3(*options)
    sent, received = totals(report)
    wanted = {"64M": 64 << 20, "500": 500 * 128 * 1024, "1": 1}[options[1]]
    if options[0] == "-k" and "-R" in options:
        wanted = 500  # a receiving client counts reads, however little they give
    assert received >= wanted
    if "-R" in options:  # what is under way when the client has enough is counted by us only
        assert received <= sent <= report["carried"]
    else:
        assert sent == received


@pytest.mark.parametrize("direction", [[], ["-R"]], ids=["send", "receive"])
def test_omit(native, direction):
    """Each side leaves out the first second by its own clock, so one may count what the other does not."""
    report = native.iperf3("-t", "2", "-O", "1", *direction)
    ours = report["end"]["sum_sent" if direction else "sum_received"]
    assert 2 <= ours["seconds"] <= report["seconds"] - 1
    counted, omitted = ([i["sum"]["bytes"] for i in report["intervals"]
                         if i["sum"]["omitted"] == o and i["sum"]["seconds"] > 0.5]
                        for o in (False, True))
    assert all(counted) and all(omitted)
    if direction:
        assert 0 < ours["bytes"] < report["carried"]
    else:
        assert 0 < ours["bytes"] < sum(counted) + sum(omitted)


@pytest.mark.parametrize("direction", [[], ["-R"]], ids=["send", "receive"])
def test_rate(native, direction):
    """Never more, and about as much if the machine has the time."""
    sent = native.iperf3("-t", "2", "-b", "50M", *direction)["end"]["sum_sent"]
    assert 25e6 * 2 < sent["bytes"] * 8 <= 50e6 * sent["seconds"] + 8 * (128 << 10)


def test_reports_retransmits_and_words(native):
    report = native.iperf3("-t", "1", "-R", "--get-server-output")
    assert report["end"]["sum_sent"]["retransmits"] >= 0
    assert 0 < report["end"]["cpu_utilization_percent"]["remote_total"] < 150
    assert "sent " in report["server_output_text"]


@pytest.mark.parametrize("options", [
    [], ["-R"], ["-P", "4"], ["-P", "4", "-R"], ["--bidir"], ["-l", "64"], ["-l", "64", "-R"],
    ["-l", "4000"], ["-l", "4000", "-R"], ["-O", "1"], ["-n", "1M"],
], ids=lambda o: " ".join(o) or "to server")
def test_udp(native, options):
    """What arrives and what is lost adds up, no more is lost than Linux's queues have dropped, and nobody
    sends more than was asked for."""
    before = udp_dropped(native)
    report = native.iperf3("-u", "-b", "8M", *([] if "-n" in options else ["-t", "2"]), *options)
    assert "error" not in report, report["error"]
    end, dropped = report["end"], udp_dropped(native) - before
    streams = len(end["streams"])
    assert streams == {"-P": 4, "--bidir": 2}.get(options[0] if options else "", 1)
    for stream in end["streams"]:
        udp = stream["udp"]
        size = int(options[1]) if "-l" in options else udp["bytes"] / udp["packets"]
        assert udp["packets"] * size == pytest.approx(udp["bytes"], rel=0.05)
        assert udp["packets"] > ((1 << 20) / size * 0.9 if "-n" in options else 100)
        assert udp["jitter_ms"] < 1000
    assert sum(stream["udp"]["lost_packets"] for stream in end["streams"]) <= dropped
    if "-n" not in options:
        one_way = 1 if "--bidir" in options else streams
        assert 4e6 * one_way < end["sum"]["bits_per_second"] < 8.5e6 * one_way


def udp_dropped(native):
    """Datagrams that Linux has dropped, its sockets and its queues to the program together."""
    text = subprocess.run([*native.inside, "cat", "/proc/net/snmp", "/sys/class/net/tap0/statistics/tx_dropped"],
                          check=True, text=True, stdout=subprocess.PIPE).stdout
    names, values = (line.split() for line in text.splitlines() if line.startswith("Udp:"))
    return int(values[names.index("RcvbufErrors")]) + int(text.split()[-1])


def test_udp_without_a_limit(native):
    """As fast as it goes, which is more than the client takes."""
    report = native.iperf3("-u", "-b", "0", "-R", "-t", "2")
    assert "error" not in report, report["error"]
    assert report["end"]["sum"]["packets"] > 2000  # by default it would be 174


def test_second_client_is_denied(native):
    start = len(native.log)
    first = subprocess.Popen([*native.inside, "iperf3", "-c", SERVER, "-t", "4", "-J"],
                             stdout=subprocess.PIPE)
    native.wait_log(rb"test of \S+, iperf 3", start=start)
    for _ in range(3):
        assert "busy running a test" in native.iperf3("-t", "1")["error"]
    report = json.loads(first.communicate(timeout=20)[0])
    assert first.returncode == 0
    check(report)


@pytest.mark.parametrize("options", [["-P", "8"], ["-P", "8", "-R"]], ids=["send", "receive"])
def test_killed_client_frees_everything(native, options):
    idle = native.objects()
    start = len(native.log)
    client = subprocess.Popen([*native.inside, "iperf3", "-c", SERVER, "-t", "30", *options],
                              stdout=subprocess.DEVNULL)
    native.wait_log(rb"test of \S+, iperf 3", start=start)
    wait_for(lambda: native.objects() > idle + 8, 10, "the test takes memory")
    time.sleep(0.5)
    client.kill()
    client.wait()
    native.wait_log(rb"given up: ", start=start)
    native.wait_objects(idle, 20)


def test_interrupted_client(native):
    start = len(native.log)
    client = subprocess.Popen([*native.inside, "iperf3", "-c", SERVER, "-t", "30", "-R"],
                              stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    native.wait_log(rb"test of \S+, iperf 3", start=start)
    time.sleep(0.5)
    client.send_signal(2)
    client.wait(10)
    native.wait_log(rb"given up: the client was interrupted", start=start)


def test_many_tests_in_sequence(native):
    for _ in range(30):
        native.iperf3("-n", "64K", "-P", "2")
        native.iperf3("-n", "64K", "-R")


# ---- Clients that do not play by the rules ----

def receive(sock, count):
    data = b""
    while len(data) < count:
        more = sock.recv(count - len(data))
        if not more:
            break
        data += more
    return data


def ended(sock, timeout=15):
    """True if the server ends the connection in time, whatever it says before."""
    sock.settimeout(timeout)
    try:
        while sock.recv(65536):
            pass
    except ConnectionError:
        pass
    except TimeoutError:
        return False
    return True


def begin(native, parameters, cookie=COOKIE):
    """A control connection that has sent its parameters."""
    control = native.connect()
    control.sendall(cookie)
    assert receive(control, 1) == bytes([PARAM_EXCHANGE])
    text = parameters if isinstance(parameters, bytes) else json.dumps(parameters).encode()
    control.sendall(struct.pack(">I", len(text)) + text)
    return control


def error_of(control):
    answer = receive(control, 9)
    assert answer[0] == SERVER_ERROR, answer
    return struct.unpack(">I", answer[1:5])[0]


@pytest.mark.parametrize("garbage", [b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", b"\0" * 100,
                                     os.urandom(5000), b"x" * 37], ids=["http", "zeros", "random", "x"])
def test_garbage_is_dropped(native, garbage):
    for _ in range(5):  # the log takes ten lines a second of all that clients cause
        sock = native.connect()
        name = f"{HERE}:{sock.getsockname()[1]}".encode()
        sock.sendall(garbage)
        assert ended(sock, 5)
        sock.close()
        native.read()
        if b"garbage from " + name + b" dropped" in native.log:
            return
        time.sleep(0.5)
    raise AssertionError("no log line for garbage")


def test_next_client_in_one_batch_with_the_last_ones_end(native):
    last, following = native.connect(), native.connect()
    last.sendall(COOKIE)
    assert receive(last, 1) == bytes([PARAM_EXCHANGE])
    native.process.send_signal(signal.SIGSTOP)  # what comes now is one batch
    last.sendall(struct.pack(">I", 2) + b"[]")
    following.sendall(b"b" * 36 + b"\0")
    time.sleep(0.1)
    native.process.send_signal(signal.SIGCONT)
    assert receive(last, 1) == bytes([SERVER_ERROR])
    assert receive(following, 1) == bytes([PARAM_EXCHANGE])
    last.close()
    following.close()


def test_cookie_in_pieces(native):
    control = native.connect()
    for byte in COOKIE:
        control.sendall(bytes([byte]))
        time.sleep(0.005)
    assert receive(control, 1) == bytes([PARAM_EXCHANGE])
    control.close()


def test_silent_connection_blocks_nobody(native):
    silent = [native.connect() for _ in range(20)]
    check(native.iperf3("-t", "1"))
    for sock in silent:
        assert ended(sock, 12)
        sock.close()


def test_flood_of_connections(native):
    """More silent connections than the server keeps: the surplus is reset, tests go on after."""
    socks = []
    for _ in range(200):
        try:
            socks.append(native.connect())
        except OSError:
            pass
    for sock in socks:
        sock.close()
    time.sleep(0.5)
    check(native.iperf3("-t", "1"))


@pytest.mark.parametrize("parameters,error", [
    ({"udp": True, "parallel": 1}, 24), ({"udp": True, "len": 15}, 24),
    ({"udp": True, "len": 65508}, 24), ({"sctp": True, "parallel": 1}, 18),
    ({"tcp": True, "parallel": 129}, 6), ({"tcp": True, "parallel": 0}, 6),
    ({"tcp": True, "parallel": -1}, 6), ({"tcp": True, "parallel": 1e300}, 6),
    ({"tcp": True, "omit": 601}, 12), ({"tcp": True, "time": 86401}, 5),
    ({"tcp": True, "MSS": 65535}, 10), ({"tcp": True, "window": 1 << 40}, 8),
    ({"tcp": True, "len": 1 << 30}, 7), ({"tcp": True, "reverse": True, "bidirectional": True}, 25),
    (b"[]", 114), (b"{", 114), (b"x", 114), (b"{}}", 114), (b"{\"tcp\":tru", 114),
    (b"{" + b"\"a\":[" * 1000, 114), (b"\"" * 100, 114), (b"\xff" * 100, 114),
], ids=repr)
def test_bad_parameters(native, parameters, error):
    control = begin(native, parameters)
    assert error_of(control) == error
    control.close()


def test_message_of_impossible_length(native):
    for length in (0, 8193, 0xffffffff):
        control = native.connect()
        control.sendall(COOKIE)
        assert receive(control, 1) == bytes([PARAM_EXCHANGE])
        control.sendall(struct.pack(">I", length))
        assert error_of(control) == 114
        control.close()


def test_stranger_cannot_join(native):
    """A connection with another cookie gets no stream of a test that waits for them."""
    control = begin(native, {"tcp": True, "parallel": 2, "time": 5})
    assert receive(control, 1) == bytes([CREATE_STREAMS])
    stranger = native.connect()
    stranger.sendall(b"b" * 36 + b"\0")
    assert receive(stranger, 1) == bytes([ACCESS_DENIED])
    stranger.close()
    control.close()


def test_control_closed_in_each_state(native):
    for steps in range(5):
        control = native.connect()
        control.sendall(COOKIE[:20] if steps == 0 else COOKIE)
        streams = []
        if steps > 1:
            text = b'{"tcp":true,"parallel":2,"reverse":true}'
            control.sendall(struct.pack(">I", len(text)) + text[:10 if steps == 2 else 99])
        if steps > 2:
            assert receive(control, 2) == bytes([PARAM_EXCHANGE, CREATE_STREAMS])
            streams = [native.connect() for _ in range(2 if steps == 4 else 1)]
            for stream in streams:
                stream.sendall(COOKIE)
        if steps == 4:
            assert receive(control, 2) == bytes([TEST_START, TEST_RUNNING])
        control.close()
        for stream in streams:
            assert ended(stream, 5)
            stream.close()


def test_whole_test_by_hand(native):
    """The protocol step by step, every message cut into single bytes."""
    control = begin(native, {"tcp": True, "parallel": 1, "time": 1})
    assert receive(control, 1) == bytes([CREATE_STREAMS])
    stream = native.connect()
    stream.sendall(COOKIE)
    assert receive(control, 2) == bytes([TEST_START, TEST_RUNNING])
    stream.sendall(b"z" * 100000)
    control.sendall(bytes([TEST_END]))
    assert receive(control, 1) == bytes([EXCHANGE_RESULTS])
    text = json.dumps({"cpu_util_total": 1.5, "streams": [
        {"id": 1, "bytes": 100000, "retransmits": 0, "jitter": 0, "errors": 0, "packets": 0}]})
    for byte in struct.pack(">I", len(text)) + text.encode():
        control.sendall(bytes([byte]))
    length = struct.unpack(">I", receive(control, 4))[0]
    results = json.loads(receive(control, length))
    assert [s["id"] for s in results["streams"]] == [1]
    assert results["streams"][0]["bytes"] == 100000
    assert receive(control, 1) == bytes([DISPLAY_RESULTS])
    control.sendall(bytes([IPERF_DONE]))
    control.close()
    stream.close()


def udp_socket(native):
    sock = native.enter(lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
    sock.connect((SERVER, PORT))
    sock.settimeout(5)
    return sock


def udp_results(control):
    """Ends a test; what the server says of its streams."""
    control.sendall(bytes([TEST_END]))
    assert receive(control, 1) == bytes([EXCHANGE_RESULTS])
    control.sendall(struct.pack(">I", 14) + b'{"streams":[]}')
    length = struct.unpack(">I", receive(control, 4))[0]
    return json.loads(receive(control, length))["streams"]


@pytest.mark.parametrize("wide", [False, True], ids=["32 bits", "64 bits"])
def test_udp_numbers(native, wide):
    """What is lost, late and twice is counted as the stock server does; the old hello, too; a hello that
    comes again is answered again and opens nothing."""
    control = begin(native, {"udp": True, "parallel": 2, "len": 100, "udp_counters_64bit": int(wide)})
    assert receive(control, 1) == bytes([CREATE_STREAMS])
    socks = [udp_socket(native) for _ in range(2)]
    for hello, answer in ((0x36373839, 0x39383736), (0x36373839, 0x39383736)):
        socks[0].send(struct.pack("<I", hello))
        assert socks[0].recv(100) == struct.pack("<I", answer)
    socks[1].send(struct.pack("<I", 123456789))
    assert socks[1].recv(100) == struct.pack("<I", 987654321)
    assert receive(control, 2) == bytes([TEST_START, TEST_RUNNING])
    start = time.monotonic()
    for number in (1, 2, 6, 4, 7, 7, 10):
        socks[0].send(struct.pack(">IIQ" if wide else ">III", 5, number * 1000, number) + bytes(50))
    socks[0].send(b"short")
    socks[1].send(struct.pack(">IIQ" if wide else ">III", 5, 0, 1) + bytes(50))
    first, second = udp_results(control)
    took = time.monotonic() - start
    size = 66 if wide else 62
    assert (first["id"], first["packets"], first["errors"], first["bytes"]) == (1, 10, 3, 7 * size)
    assert (second["id"], second["packets"], second["errors"], second["bytes"]) == (3, 1, 0, size)
    assert second["jitter"] == 0 < first["jitter"] < 0.01 + took
    control.close()
    for sock in socks:
        sock.close()


def test_udp_strangers(native):
    """Without a test, or in a test by TCP, a hello is not answered."""
    with udp_socket(native) as sock:
        sock.settimeout(0.2)
        with pytest.raises(TimeoutError):
            sock.send(struct.pack("<I", 0x36373839))
            sock.recv(100)
        control = begin(native, {"tcp": True, "parallel": 1})
        assert receive(control, 1) == bytes([CREATE_STREAMS])
        with pytest.raises(TimeoutError):
            sock.send(struct.pack("<I", 0x36373839))
            sock.recv(100)
        control.close()


def test_late_data_is_counted(native):
    """What the client says it sent is waited for, so both sides' totals agree."""
    control = begin(native, {"tcp": True, "parallel": 1})
    assert receive(control, 1) == bytes([CREATE_STREAMS])
    stream = native.connect()
    stream.sendall(COOKIE)
    receive(control, 2)
    control.sendall(bytes([TEST_END]))
    assert receive(control, 1) == bytes([EXCHANGE_RESULTS])
    text = json.dumps({"streams": [{"id": 1, "bytes": 5000}]}).encode()
    control.sendall(struct.pack(">I", len(text)) + text)
    time.sleep(0.3)
    stream.sendall(b"z" * 5000)
    length = struct.unpack(">I", receive(control, 4))[0]
    assert json.loads(receive(control, length))["streams"][0]["bytes"] == 5000
    control.close()
    stream.close()


def test_bad_results(native):
    for text in (b"{", b"[]", b"{}", b'{"streams":3}', b'{"streams":[{"id":1}]}', os.urandom(500)):
        control = begin(native, {"tcp": True, "parallel": 1})
        assert receive(control, 1) == bytes([CREATE_STREAMS])
        stream = native.connect()
        stream.sendall(COOKIE)
        receive(control, 2)
        control.sendall(bytes([TEST_END]))
        assert receive(control, 1) == bytes([EXCHANGE_RESULTS])
        control.sendall(struct.pack(">I", len(text)) + text)
        answer = receive(control, 1)
        assert answer == bytes([SERVER_ERROR]), (text, answer)
        control.close()
        stream.close()


def test_fuzzed_control_messages(native):
    """Valid conversations with a few bytes changed, dropped or added; a seed tells which."""
    seed = int(os.environ.get("FUZZ_SEED", "1"))
    chance = random.Random(seed)
    text = json.dumps({"tcp": True, "omit": 0, "time": 1, "num": 0, "blockcount": 0, "parallel": 1,
                       "reverse": True, "len": 131072, "client_version": "3.12"}).encode()
    for _ in range(300):
        script = bytearray(COOKIE + struct.pack(">I", len(text)) + text +
                           bytes([TEST_END]) + struct.pack(">I", 16) + b'{"streams":[]}  ' +
                           bytes([IPERF_DONE]))
        for _ in range(chance.randrange(1, 5)):
            at = chance.randrange(len(script))
            kind = chance.randrange(3)
            if kind == 0:
                script[at] = chance.randrange(256)
            elif kind == 1:
                del script[at]
            else:
                script.insert(at, chance.randrange(256))
        sock = native.connect()
        sock.settimeout(0.02)
        try:
            sock.sendall(script)
            sock.recv(100)
            if chance.randrange(4) == 0:
                stream = native.connect()
                stream.sendall(COOKIE)
                stream.close()
        except OSError:
            pass
        sock.close()
    check(native.iperf3("-t", "1"))


def raw_segments(native, sock):
    """A function that sends TCP data of an established connection at any offset, past the kernel."""
    repair, queue, sequence = 19, 20, 21
    sock.setsockopt(socket.IPPROTO_TCP, repair, 1)
    numbers = []
    for which in (2, 1):  # send queue, receive queue
        sock.setsockopt(socket.IPPROTO_TCP, queue, which)
        numbers.append(sock.getsockopt(socket.IPPROTO_TCP, sequence) & 0xffffffff)
    raw = raw_socket(native)
    port = sock.getsockname()[1]

    def send(offset, data):
        raw.send(frame(segment(HERE, port, PORT, numbers[0] + offset, numbers[1], data=data)))
        time.sleep(0.002)
    return send


def test_segments_beyond_the_window(build):
    """Out of order, over the window's edge, then the hole is filled: lwIP alone would assert."""
    native = Native()
    try:
        for option in ("window_scaling", "timestamps", "sack"):
            run(*native.inside, "sh", "-c", f"echo 0 >/proc/sys/net/ipv4/tcp_{option}")
        with native.connect() as sock:
            send = raw_segments(native, sock)
            offset = 65500
            send(offset, b"a" * 1460)
            while offset > 1:
                size = min(1460, offset - 1)
                offset -= size
                send(offset, b"a" * size)
            time.sleep(0.2)
            send(0, b"a")
            time.sleep(0.2)
        assert native.stats()["tcp"]["overrunning"] == 1
        check(native.iperf3("-t", "1"))
    finally:
        native.close()


def counted(native, parameters, size):
    """What the server counts of a stream when the client has sent `size` bytes and all of them have
    been acknowledged before it ends the test."""
    control = begin(native, {"tcp": True, "parallel": 1, **parameters})
    assert receive(control, 1) == bytes([CREATE_STREAMS])
    with native.connect() as stream:
        stream.sendall(COOKIE)
        assert receive(control, 2) == bytes([TEST_START, TEST_RUNNING])
        stream.sendall(b"x" * size)
        while struct.unpack("i", fcntl.ioctl(stream, termios.TIOCOUTQ, bytes(4)))[0]:
            time.sleep(0.01)  # what has not arrived when the test ends does not count
        control.sendall(bytes([TEST_END]))
        assert receive(control, 1) == bytes([EXCHANGE_RESULTS])
        text = json.dumps({"streams": [{"id": 1, "bytes": size}]}).encode()
        control.sendall(struct.pack(">I", len(text)) + text)
        length = struct.unpack(">I", receive(control, 4))[0]
        count = json.loads(receive(control, length))["streams"][0]["bytes"]
        assert receive(control, 1) == bytes([DISPLAY_RESULTS])
        control.sendall(bytes([IPERF_DONE]))
        control.close()
    return count


@pytest.mark.parametrize("window", [1, 100, 1024, 2048, 65536])
def test_small_windows(native, window):
    """A client that asks for a small window and sends as if it had not."""
    assert counted(native, {"window": window}, 300000) == 300000


def test_data_before_the_answer(build):
    """The client knows that the test runs, and sends, before the stream's core does: half of the
    messages that tell it are refused."""
    native = Native("--offload", "--refuse", 2)
    try:
        assert [counted(native, {}, 100000) for _ in range(8)] == [100000] * 8
    finally:
        native.close()


def test_end_within_omitted_seconds(native):
    """TEST_END before the seconds to omit are over, then silence: nothing spins."""
    control = begin(native, {"tcp": True, "parallel": 1, "omit": 1})
    assert receive(control, 1) == bytes([CREATE_STREAMS])
    stream = native.connect()
    stream.sendall(COOKIE)
    assert receive(control, 2) == bytes([TEST_START, TEST_RUNNING])
    control.sendall(bytes([TEST_END]))
    assert receive(control, 1) == bytes([EXCHANGE_RESULTS])
    time.sleep(1.2)
    before = native.cpu_seconds()
    time.sleep(1)
    assert native.cpu_seconds() - before < 0.3
    control.close()
    stream.close()


def test_log_is_not_flooded(native):
    """However many clients are denied, only so many lines tell of it, and one that there were more."""
    control = begin(native, {"tcp": True, "parallel": 1})
    start = len(native.log)
    for _ in range(300):
        sock = native.connect()
        sock.sendall(COOKIE[:35] + b"z\0")
        assert receive(sock, 1) == bytes([ACCESS_DENIED])
        sock.close()
    time.sleep(0.1)
    control.close()
    native.wait_log(rb"given up: ", start=start)
    denied = native.log[start:].count(b"denied: a test is running")
    left_out = sum(int(n) for n in re.findall(rb"iperf3: (\d+) lines left out", native.log[start:]))
    assert denied + left_out == 300 and 0 < denied < 250


def test_flood_does_not_keep_others_out(native):
    """Silent connections lose their place to new ones."""
    silent = [native.connect() for _ in range(100)]
    sock = native.connect()
    sock.sendall(COOKIE)
    assert receive(sock, 1) == bytes([PARAM_EXCHANGE])
    sock.close()
    for other in silent:
        other.close()


def test_little_memory(build):
    """With next to no memory connections are refused, nothing falls over, all comes back."""
    native = Native("--memory", "1")
    try:
        idle = native.objects()
        for options in (["-P", "64"], ["-P", "64", "-R"], ["-P", "16", "-R"], ["-P", "16"]):
            try:
                native.iperf3("-t", "2", *options, timeout=20)
            except (AssertionError, subprocess.TimeoutExpired, json.JSONDecodeError):
                pass  # the client may well fail, the program may not
        native.wait_objects(idle + 4, 40)
        assert native.stats()["tcp"]["refused_allocations"] > 0
        check(native.iperf3("-t", "1"))
    finally:
        native.close()


def source_ports(native, count, *listeners):
    """The source ports of connections that the program makes to the listeners in turn."""
    ports = []
    for number in range(count):
        listener = listeners[number % len(listeners)]
        native.type(f"connect {HERE} {listener.getsockname()[1]}")
        sock, peer = listener.accept()
        sock.close()
        ports.append(peer[1])
    return ports


def test_source_ports(native):
    """RFC 6056: by a keyed hash of where to, so that one peer cannot tell the ports used for others."""
    listeners = [native.enter(lambda: socket.create_server((HERE, 0))) for _ in range(2)]
    for listener in listeners:
        listener.settimeout(5)
    ports = source_ports(native, 20, *listeners)
    assert len(set(ports)) == 20 and min(ports) >= 49152
    first, second = ports[0::2], ports[1::2]
    # To one destination they go up by the connections made meanwhile; from one to another they jump.
    assert all((b - a) % 16384 == 2 for a, b in zip(first, first[1:]))
    assert (second[0] - first[0]) % 16384 != 1  # by chance once in 16384 runs
    for listener in listeners:
        listener.close()


def test_isn(native):
    """RFC 6528: sequence numbers of one pair of addresses go on with the clock, others jump."""
    def isn(port):
        with native.enter(lambda: socket.create_connection((SERVER, PORT), 5, (HERE, port))) as sock:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            sock.setsockopt(socket.IPPROTO_TCP, 19, 1)
            sock.setsockopt(socket.IPPROTO_TCP, 20, 1)
            number = sock.getsockopt(socket.IPPROTO_TCP, 21) & 0xffffffff
            sock.setsockopt(socket.IPPROTO_TCP, 19, 0)
            return number
    start = time.monotonic()
    first, other, again = isn(20001), isn(20002), isn(20001)
    ticks = (time.monotonic() - start) * 250000
    assert 0 < (again - first) % 2**32 <= ticks + 1
    assert (other - first) % 2**32 > ticks + 1


# ---- The same under other conditions ----

@pytest.mark.parametrize("size", [0, 56, 1472, 1473, 4000, 8000])
def test_ping(native, size):
    check_ping(native, SERVER, 3, size=size)


@pytest.mark.parametrize("options", [
    ["--faults", "5", "--offload"], ["--faults", "2"], ["--mtu", "576"], [],
    ["--offload", "--no-large-receive"], ["--offload", "--no-large-send"]
], ids=["faults", "more faults, no offload", "small MTU", "no offload", "no large receive",
        "no large send"])
def test_conditions(build, options):
    """A NIC that is often full and often holds frames; checksums by software; a small MTU."""
    native = Native(*options)
    try:
        for test in (["-R"], [], ["-P", "8", "-R"], ["-P", "8"], ["-n", "8M", "-R"]):
            report = native.iperf3(*([] if "-n" in test else ["-t", "1"]), *test)
            check_totals(*totals(report), 8, report["carried"] if "-R" in test else None, 0.02)
        check_ping(native, SERVER, 3, size=8000)
        stats = native.stats()["net"]["nic0"]
        if "--faults" in options:
            assert stats["tx_held"] > 0 and stats["tx_queued"] > 0
        # Large segments arrive where the NIC makes them, or are made where it vouches for the parts.
        assert (stats["rx_segments"] > stats["rx_frames"]) == (
            "--offload" in options and "--no-large-receive" not in options)
        if "--no-large-receive" in options:
            assert stats["rx_merged"] > 2 * stats["rx_merged_frames"] > 0
        assert (stats["tx_large"] > 0) == (
            "--offload" in options and "--no-large-send" not in options)
        native.wait_objects(96, 10)
        assert native.stats()["net"]["nic0"]["rx_on_loan"] == 0
    finally:
        native.close()


def test_nic_removed(build):
    """Of two NICs with DHCP the first goes: the other keeps serving, also beyond its own network."""
    native = Native(taps=2, address=False)
    ranges = [f"--dhcp-range=10.77.{n}.100,10.77.{n}.199,1h" for n in range(2)]
    dnsmasq = subprocess.Popen(
        [*native.inside, "dnsmasq", "--no-daemon", "--conf-file=/dev/null", "--port=0",
         "--user=root", "--pid-file", "--no-ping", "--leasefile-ro", "--dhcp-authoritative",
         *ranges], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        run("ip", "-n", native.namespace, "addr", "add", "192.0.2.1/32", "dev", "lo")
        pings = []
        for n in range(2):
            found = native.wait_log(rb"net: nic%d: address (10\.77\.%d\.\d+)/24, gateway 10\.77"
                                    % (n, n), timeout=40)
            pings.append([*native.inside, "ping", "-c", "2", "-i", "0.2", "-W", "2",
                          found[1].decode()])
        native.type("remove 0")
        assert subprocess.run(pings[1], stdout=subprocess.DEVNULL, check=False).returncode == 0
        far = [*pings[1], "-I", "192.0.2.1"]
        assert subprocess.run(far, stdout=subprocess.DEVNULL, check=False).returncode == 0
        assert subprocess.run(pings[0], stdout=subprocess.DEVNULL, check=False).returncode != 0
        assert list(native.stats()["net"]) == ["nic1"]
    finally:
        dnsmasq.terminate()
        dnsmasq.wait()
        native.close()


@pytest.mark.parametrize("options", [["--losses", "100"],
                                     ["--losses", "50", "--faults", "2", "--offload"]],
                         ids=" ".join)
def test_lost_frames(build, options):
    """With frames lost and the NIC's ring full, what arrives is still the right stream: pieces of one
    constant buffer, each from its beginning."""
    native = Native(*options)
    try:
        control = begin(native, {"tcp": True, "parallel": 1, "reverse": True})
        assert receive(control, 1) == bytes([CREATE_STREAMS])
        stream = native.connect()
        stream.sendall(COOKIE)
        data = receive(stream, 1 << 22)
        assert len(data) == 1 << 22
        buffer, at = data[:60000], 0
        while at < len(data):
            size = len(os.path.commonprefix([buffer, data[at:at + len(buffer)]]))
            assert size > 0, f"not the buffer at byte {at}"
            at += size
            if size == len(buffer):  # the rest of this piece is only known to be there
                at = data.find(buffer[:16], at)
                if at < 0:
                    break
        stream.close()
        control.close()
    finally:
        native.close()
