# SPDX-License-Identifier: BSD-2-Clause
"""A VM's Unix sockets: QMP (the host's control protocol) and the guest's COM1."""

import json
import os
import socket
import threading

from . import HvError


def connect(path, timeout=10):
    """Connects to a Unix socket however long its path is (the kernel's limit is 107 bytes)."""
    folder = os.open(path.parent, os.O_PATH | os.O_DIRECTORY)
    try:
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        sock.settimeout(timeout)
        sock.connect(f"/proc/self/fd/{folder}/{path.name}")
        return sock
    except OSError as error:
        sock.close()
        raise HvError(f"cannot reach the VM at {path}: {error.strerror}") from error
    finally:
        os.close(folder)


class Qmp:
    """One QMP session. The host serves one client per socket, so keep it short."""

    def __init__(self, path, timeout=10):
        self.sock = connect(path, timeout)
        self.reader = self.sock.makefile("r", encoding="utf-8")
        self.events = []
        self._read()  # the greeting
        self.command("qmp_capabilities")

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def close(self):
        self.reader.close()
        self.sock.close()

    def _read(self):
        try:
            line = self.reader.readline()
        except ConnectionError:  # it ended before it took the connection
            line = ""
        if not line:
            raise HvError("the VM has closed its control socket")
        return json.loads(line)

    def command(self, name, /, **arguments):
        request = {"execute": name, "arguments": {k.replace("_", "-"): v
                                                  for k, v in arguments.items()}}
        try:
            self.sock.sendall(json.dumps(request).encode() + b"\n")
            while True:
                reply = self._read()
                if "return" in reply:
                    return reply["return"]
                if "error" in reply:
                    raise HvError(f"{name}: {reply['error']['desc']}")
                self.events.append(reply)
        except OSError as error:
            raise HvError(f"{name}: no answer from the VM ({error})") from None


class EventWatch(threading.Thread):
    """Remembers why a VM stopped: collects the events of its second QMP socket."""

    def __init__(self, path):
        super().__init__(daemon=True)
        self.qmp = Qmp(path)
        self.qmp.sock.settimeout(None)
        self.events = self.qmp.events
        self.start()

    def run(self):
        try:
            for line in self.qmp.reader:
                self.events.append(json.loads(line))
        except (OSError, ValueError):
            pass  # the VM is gone; what was read is kept

    def reason(self):
        """The reason of the last SHUTDOWN event, e.g. guest-shutdown, or None."""
        reasons = [e["data"].get("reason") for e in self.events if e["event"] == "SHUTDOWN"]
        return reasons[-1] if reasons else None


class ConsoleWriter:
    """Types on the guest's COM1. What the guest prints is read from the log file, so it is drained
    here: a full socket would stall the guest's serial port."""

    def __init__(self, path):
        self.sock = connect(path)
        self.sock.settimeout(None)
        threading.Thread(target=self._drain, daemon=True).start()

    def _drain(self):
        try:
            while self.sock.recv(4096):
                pass
        except OSError:
            pass  # closed

    def send_line(self, text):
        self.sock.sendall(text.encode() + b"\n")

    def close(self):
        try:
            self.sock.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass  # the VM went first
        self.sock.close()
