# SPDX-License-Identifier: BSD-2-Clause
"""The NICs of a VM: what `--nic` says as arguments for the host, and what an administrator does with
them while the VM runs (add, remove, link, speed, pause). Used by tools/hv, the tests, the benchmark."""

import dataclasses
import json
import subprocess
import time

from . import HvError

PERIPHERAL = "/machine/peripheral"
POLL = 0.01


@dataclasses.dataclass
class Nic:
    """A NIC and what is behind it, not yet a part of any VM."""
    name: str  # the device's id
    number: int  # gives the MAC address and the user network, unless told otherwise
    backend: dict  # of QEMU's netdev, but for the id
    options: dict  # of the hv-net device

    @classmethod
    def parse(cls, text, number, vcpus, more_options=(), name=None, tap_is_multi_queue=None):
        """What --nic says: KIND[,PROPERTY=VALUE...]. tap_is_multi_queue(name) tells of a tap."""
        kind, *words = text.split(",")
        options = {"queues": str(vcpus), "mac": mac_address(number)}
        for word in [*more_options, *words]:
            key, _, value = word.partition("=")
            options[key] = value
        backend, _, rest = kind.partition(":")
        if backend == "user" and not rest:
            netdev = user_network(number)
        elif backend == "tap" and rest:
            netdev = {"type": "tap", "ifname": rest, "script": "no", "downscript": "no"}
            if tap_is_multi_queue and tap_is_multi_queue(rest):
                # such a tap has to be opened with two queues at least
                netdev["queues"] = max(2, int(options["queues"]))
        elif backend == "socket" and rest:
            netdev = {"type": "socket",
                      **{k: v for k, _, v in (word.partition("=") for word in rest.split(";"))}}
        else:
            raise HvError(f"--nic {text}: write user, tap:IFNAME, socket:OPTIONS or none")
        return cls(name or f"nic{number}", number, netdev, options)

    def forward(self, forwards):
        """Leads ports of this machine into the guest."""
        if forwards and self.backend["type"] != "user":
            raise HvError("--forward needs a user NIC (--nic user)")
        if forwards:
            self.backend["hostfwd"] = [{"str": f"{f.proto}:{f.address}:{f.port}-:{f.guest}"}
                                       for f in forwards]

    @property
    def netdev_id(self):
        """The backend's: net0 is behind nic0."""
        return "net" + self.name.removeprefix("nic")

    def netdev(self):
        """The backend for QEMU."""
        return {"id": self.netdev_id, **self.backend}

    def device(self):
        """The device for QEMU."""
        return {"driver": "hv-net", "id": self.name, "netdev": self.netdev_id, **self.options}


def mac_address(number):
    """The MAC address of a VM's n-th NIC."""
    return f"00:15:5d:44:4c:{number:02x}"


def user_network(number):
    """Each NIC's user network is another one; the first is the one that QEMU's manual tells of."""
    netdev = {"type": "user", "net": f"10.0.{2 + number}.0/24"}
    if number:
        netdev["ipv6-prefix"] = f"fec0:0:0:{number:x}::"
    return netdev


def multi_queue_reader(*prefix):
    """Tells, when called with a tap's name, if it has several queues; prefix: where `ip` runs."""
    def reader(name):
        shown = subprocess.run([*prefix, "ip", "-details", "link", "show", "dev", name], text=True,
                               check=False, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL).stdout
        return " multi_queue " in shown
    return reader


def arguments(spec):
    """The host's arguments for the NICs of a VM's description (Spec)."""
    words = []
    forwards = list(spec.forwards)
    inside = ["ip", "netns", "exec", spec.netns] if spec.netns else []
    for number, text in enumerate(spec.nics):
        nic = Nic.parse(text, number, spec.vcpus, spec.nic_opts,
                        tap_is_multi_queue=multi_queue_reader(*inside))
        if nic.backend["type"] == "user":
            nic.forward(forwards)
            forwards = []
        if spec.hyperv:
            device = nic.device()
            words += ["-netdev", json.dumps(nic.netdev()), "-device",
                      ",".join([device.pop("driver"), *(f"{k}={v}" for k, v in device.items())])]
    if forwards:
        raise HvError("--forward needs a user NIC (--nic user)")
    return words


# While the VM runs --------------------------------------------------------------------------------


def path_of(vm, name):
    """The NIC's place in the host's tree of objects; HvError if there is none of that name."""
    nics = names(vm)
    if name not in nics:
        raise HvError(f"{vm.name} has no NIC named {name}; " + (
            f"it has: {', '.join(nics)}" if nics else "it has none"))
    return f"{PERIPHERAL}/{name}"


def names(vm):
    """The NICs that the VM has, also those that the guest has not let go of."""
    return sorted(p["name"] for p in vm.qmp("qom-list", path=PERIPHERAL)
                  if p["type"] == "child<hv-net>")


def prepare(vm, text="user", name=None, options=(), forwards=()):
    """What is behind a new NIC (text as in --nic); returns the NIC, for plug()."""
    stats = vm.stats()
    devices = stats["devices"]
    macs = {device.get("mac") for device in devices.values()}
    number = 0
    while f"nic{number}" in devices or mac_address(number) in macs:
        number += 1
    reader = multi_queue_reader("nsenter", "--net", "--target", str(vm.pid()))
    nic = Nic.parse(text, number, len(stats["vps"]), options, name, reader)
    nic.forward(list(forwards))
    if nic.name in names(vm):
        raise HvError(f"{vm.name} has a NIC named {nic.name}" + (
            " that the guest has not let go of" if devices[nic.name]["leaving"] else ""))
    _forget_backend(vm, nic.netdev_id)
    vm.qmp("netdev_add", **nic.netdev())
    return nic


def plug(vm, nic):
    """Plugs a prepared NIC in: the guest sees it from now on."""
    try:
        vm.qmp("device_add", **nic.device())
    except HvError:
        _forget_backend(vm, nic.netdev_id)
        raise


def add(vm, *what, **more):
    """Prepares a NIC and plugs it in; returns it. Arguments as of prepare()."""
    nic = prepare(vm, *what, **more)
    plug(vm, nic)
    return nic


def _forget_backend(vm, netdev):
    """Removes a backend; fine if there is none. A NIC that the host takes back leaves its own."""
    try:
        vm.qmp("netdev_del", id=netdev)
    except HvError as error:
        if "not found" not in str(error):
            raise


def remove(vm, name, timeout=10):
    """Takes a NIC back and waits until the guest has let go of it; returns how many seconds it took.
    Without the guest's consent the NIC is dead all the same, but its place stays taken."""
    path = path_of(vm, name)
    netdev = vm.qmp("qom-get", path=path, property="netdev")
    start = time.monotonic()
    vm.qmp("device_del", id=name)
    wait_gone(vm, name, timeout)
    seconds = time.monotonic() - start
    if netdev:
        _forget_backend(vm, netdev)
    return seconds


def wait_gone(vm, name, timeout=10):
    """Waits until the guest has let go of a NIC that it was told it has lost."""
    deadline = time.monotonic() + timeout
    while name in names(vm):
        if time.monotonic() > deadline:
            raise HvError(f"the guest has lost {name} but has not let go of it in {timeout:g} s")
        time.sleep(POLL)


def set_link(vm, name, up):
    """Pulls the cable, or puts it back. The guest hears of changes 5 s apart at least."""
    path_of(vm, name)
    vm.qmp("set_link", name=name, up=up)


def set_speed(vm, name, mbit):
    """Another speed of the link, in Mbit/s; the guest is told."""
    vm.qmp("qom-set", path=path_of(vm, name), property="link-speed", value=mbit)


def change_network(vm, name):
    """The guest is told that there is another network behind the NIC."""
    vm.qmp("qom-set", path=path_of(vm, name), property="network-change", value=True)


def set_send_table(vm, name, channels):
    """By which channels the guest is asked to send, in turn, by its flows' hashes; it is told at once."""
    vm.qmp("qom-set", path=path_of(vm, name), property="send-table", value=",".join(map(str, channels)))


def pause(vm, name, paused=True):
    """The host neither takes nor gives anything until the NIC is resumed (paused=False)."""
    vm.qmp("qom-set", path=path_of(vm, name), property="paused", value=paused)


def describe(vm):
    """A line for each NIC."""
    lines = []
    devices = vm.stats()["devices"]
    for name in names(vm):
        nic = devices[name]
        words = [f"{name}: {nic['mac']}", f"{sum(c['open'] for c in nic['channels'])} channels open",
                 f"{nic['link_speed']} Mbit/s"]
        words += ["link down"] if not nic["link_up"] else []
        words += ["paused"] if nic["paused"] else []
        words += ["removed, the guest has not let go of it"] if nic["leaving"] else []
        lines.append(", ".join(words))
    return lines
