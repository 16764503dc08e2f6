# SPDX-License-Identifier: BSD-2-Clause
"""The witness when NICs come, go and change while it runs: what the host does is what Linux knows of
Hyper-V. A NIC of its own (nic0) stays and is asked in between; each other is added for a test.

This Linux waits for ever when a NIC is taken back while a send is under way, or an answer to one of
its questions (but for those before the channel is open). So the cable is pulled first."""

import subprocess
import time

import pytest

from hvlib import HvError, nic
from hvlib.vm import Forward
from linux import Linux, spec_fields
from support import free_port, hv

CHANNELS = 4


@pytest.fixture(scope="module")
def guest(module_boot):
    return Linux(module_boot.start(**spec_fields(vcpus=CHANNELS)))


@pytest.fixture(autouse=True)
def only_the_first_stays(guest):
    """Whatever a test has added goes, and nic0 works as before."""
    yield
    for name in nic.names(guest.vm)[1:]:
        nic.pause(guest.vm, name, False)
        remove(guest, name)
    assert guest.check("ls /sys/class/net").split() == ["eth0", "lo"]
    guest.check("ping -c 1 -W 5 10.0.2.2")


def device(guest, name="nic1"):
    return guest.vm.stats()["devices"][name]


def wait_for(guest, condition, seconds=10):
    """Until a shell condition is true in the guest."""
    guest.check(f"for i in $(seq {seconds * 20}); do {condition} && exit 0; sleep 0.05; done; exit 1",
                seconds + 20)


def pull_cable(guest, name):
    """Waits until the guest has brought the NIC up; nothing is under way in it afterwards."""
    deadline = time.monotonic() + 20
    while not (now := device(guest, name))["rss_hash"] or not all(c["open"] for c in now["channels"]):
        assert time.monotonic() < deadline, f"{name} does not come up: {now}"
        time.sleep(0.05)
    nic.set_link(guest.vm, name, False)
    wait_for(guest, f"f=$(grep -l {device(guest, name)['mac']} /sys/class/net/*/address); "
             '[ "$(cat ${f%address}operstate)" != up ]')


def remove(guest, name):
    pull_cable(guest, name)
    nic.remove(guest.vm, name)


def lease(guest, interface="eth1", network=3):
    """Brings the interface up and takes an address."""
    wait_for(guest, f"[ -e /sys/class/net/{interface} ]")
    guest.check(f"ip link set {interface} up && "
                f"udhcpc -q -n -t 20 -T 1 -i {interface} -s /etc/udhcpc.script")
    assert f"inet 10.0.{network}.15/24" in guest.check(f"ip address show dev {interface}")


def test_rescind_while_it_comes_up(guest):
    """As far as this Linux waits in a way that a rescind ends: GPADL and OPEN. Its messages cross with
    the rescind, and break no rule."""
    for setting in ("rescind-after=1", "rescind-before=1", "rescind-before=2", "rescind-after=2"):
        nic.add(guest.vm, options=[setting])
        nic.wait_gone(guest.vm, "nic1")


@pytest.mark.parametrize("options", [[], ["-R"]], ids=["to-guest", "from-guest"])
def test_removed_under_load(guest, options):
    """With four channels open and eight streams on them; the same NIC comes back at once."""
    port = free_port()
    nic.add(guest.vm, forwards=[Forward(port, 5201)])
    lease(guest)
    guest.check("until netstat -ltn | grep -q :5201; do sleep 0.1; done")
    before = device(guest)
    with subprocess.Popen(["iperf3", "-c", "127.0.0.1", "-p", str(port), "-t", "60", "-P", "8",
                           *options], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                          stderr=subprocess.DEVNULL) as client:
        try:
            deadline = time.monotonic() + 20
            while (now := device(guest)) and now["rx_bytes"] + now["tx_bytes"] < \
                    before["rx_bytes"] + before["tx_bytes"] + 20_000_000:
                assert time.monotonic() < deadline, "no traffic"
                time.sleep(0.05)
            assert sum(c["open"] for c in now["channels"]) == CHANNELS
            remove(guest, "nic1")
        finally:
            client.kill()
    nic.add(guest.vm)
    lease(guest)
    guest.check("ping -c 1 -W 5 -I eth1 10.0.3.2")
    guest.check("killall iperf3; true")  # its server waits for a client that is gone


def test_eight_nics(guest):
    added = [nic.add(guest.vm) for _ in range(7)]
    assert [a.name for a in added] == [f"nic{n}" for n in range(1, 8)]
    wait_for(guest, "[ $(ls -d /sys/class/net/eth* | wc -l) = 8 ]", 20)
    for number in (1, 7):
        name = guest.check(f"grep -il 00:15:5d:44:4c:0{number} /sys/class/net/eth*/address")
        lease(guest, name.split("/")[4], 2 + number)
    for number in (3, 7, 1, 5):
        remove(guest, f"nic{number}")
    assert nic.add(guest.vm).name == "nic1"  # the first free name and address


def test_one_instance_at_a_time(guest):
    uuid = "11223344-5566-7788-99aa-bbccddeeff00"
    nic.add(guest.vm, options=[f"instance={uuid}"])
    with pytest.raises(HvError, match="instance id"):
        nic.add(guest.vm, options=[f"instance={uuid}", "mac=00:15:5d:00:00:01"])
    with pytest.raises(HvError, match="instance id"):
        nic.add(guest.vm, options=["mac=00:15:5d:44:4c:00"])
    wait_for(guest, f"[ -e /sys/bus/vmbus/devices/{uuid} ]")
    for _ in range(2):  # a NIC with another address is the same if it has the same id
        remove(guest, "nic1")
        nic.add(guest.vm, options=[f"instance={uuid}", "mac=00:15:5d:00:00:02"])
        wait_for(guest, f"[ -e /sys/bus/vmbus/devices/{uuid} ]")
        wait_for(guest, "grep -q 00:15:5d:00:00:02 /sys/class/net/eth1/address")


def test_speed_and_network(guest):
    """Status indications: the speed, and another network, for which Linux takes the link down for
    two seconds."""
    nic.add(guest.vm, options=["link-speed=2500"])
    lease(guest)
    wait_for(guest, "[ $(cat /sys/class/net/eth1/speed) = 2500 ]")
    nic.set_speed(guest.vm, "nic1", 40000)
    wait_for(guest, "[ $(cat /sys/class/net/eth1/speed) = 40000 ]")
    nic.change_network(guest.vm, "nic1")
    for carrier in (0, 1):
        wait_for(guest, f"[ $(cat /sys/class/net/eth1/carrier) = {carrier} ]")
    guest.check("ping -c 1 -W 5 -I eth1 10.0.3.2")
    with pytest.raises(HvError, match="link-speed has to be"):
        nic.set_speed(guest.vm, "nic1", 0)


def test_pause(guest):
    """Nothing is lost: what was sent meanwhile is answered afterwards."""
    nic.add(guest.vm)
    lease(guest)
    nic.pause(guest.vm, "nic1")
    before = device(guest)
    guest.check("ping -c 3 -i 0.1 -W 30 -I eth1 10.0.3.2 >/tmp/ping & echo")
    wait_for(guest, "[ $(cat /sys/class/net/eth1/statistics/tx_packets) -ge 1 ]")
    guest.check("sleep 1")
    after = device(guest)
    assert after["paused"] and after["rx_packets"] == before["rx_packets"]
    assert after["tx_packets"] == before["tx_packets"]
    nic.pause(guest.vm, "nic1", False)
    wait_for(guest, "grep -q '3 packets received' /tmp/ping")


def test_removed_while_paused(guest):
    nic.add(guest.vm)
    lease(guest)
    pull_cable(guest, "nic1")
    nic.pause(guest.vm, "nic1")
    nic.remove(guest.vm, "nic1")


def test_backend_goes_first(guest):
    """The guest's sends do not wait for a backend that will not take them."""
    nic.add(guest.vm)
    lease(guest)
    guest.vm.qmp("netdev_del", id="net1")
    wait_for(guest, "[ $(cat /sys/class/net/eth1/carrier) = 0 ]")
    nic.set_link(guest.vm, "nic1", True)  # in vain
    guest.run("ping -c 1 -W 1 -I eth1 10.0.3.2")
    assert device(guest)["tx_pending"] == 0 and not device(guest)["link_up"]
    guest.vm.qmp("device_del", id="nic1")
    nic.wait_gone(guest.vm, "nic1")


def test_commands(guest):
    """What tools/hv prints, and what it says to wrong words."""
    def hv_nic(*words):
        return hv("nic", *words)
    vm, port = guest.vm.name, free_port()
    status, text = hv_nic("add", "--vm", vm, "--name", "blue", "--forward", f"{port}:5201",
                      "--opt", "queues=2")
    assert status == 0 and text == (f"blue: added to {vm}, 00:15:5d:44:4c:01, 127.0.0.1 port {port} "
                                    "leads to its port 5201\n")
    lease(guest)
    assert "blue: 00:15:5d:44:4c:01, 2 channels open, 10000 Mbit/s" in hv_nic("list", "--name", vm)[1]
    for words in (["send-table", "blue", "1", "0"], ["link", "blue", "down"], ["pause", "blue"],
                  ["speed", "blue", "100"]):
        assert hv_nic(*words, "--name", vm) == (0, "")
    assert "blue: 00:15:5d:44:4c:01, 2 channels open, 100 Mbit/s, link down, paused" in \
        hv_nic("list", "--name", vm)[1]
    assert hv_nic("resume", "blue", "--name", vm) == (0, "")
    status, text = hv_nic("remove", "blue", "--name", vm)
    assert status == 0 and text.startswith("blue: gone after ")
    for words, reason in ((["remove", "blue"], "has no NIC named blue; it has: nic0"),
                          (["add", "--opt", "queues=65"], "queues has to be"),
                          (["add", "--nic", "wifi"], "write user, tap:IFNAME"),
                          (["add", "--nic", "socket:connect=/", "--forward", f"{port}:1"], "user NIC")):
        status, text = hv_nic(*words, "--name", vm)
        assert status == 1 and text.startswith("hv: error: ") and reason in text, text


def test_nothing_is_left(guest):
    assert nic.names(guest.vm) == ["nic0"]
    # -19: it was rescinded while it came up
    assert [c for c in guest.kernel_complaints() if "-19" not in c] == []
