# SPDX-License-Identifier: Apache-2.0
"""Row R59 in booted guests: another VM on the same vsock device, and the guest itself, dial the enforcer."""

from __future__ import annotations

import hashlib
import re
import time
from pathlib import Path

import pytest

from parma_image.cpio import Tree, archive
from parma_wire.limits import EMULATED_SECURE_PROCESSOR_PORT, GUEST_PORT
from tests.guest import vm_harness as vm
from tests.hostile.test_vm_wire import request

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.skipif(bool(vm.missing()), reason=vm.missing()),
    pytest.mark.timeout(300),
]

VICTIM = 3
ITSELF = (vm.NEIGHBOUR, 1)
"""By its own CID, and by the one that is everybody's own (VMADDR_CID_LOCAL)."""

DIALLER = """
import os, socket, threading

console = os.open("/dev/console", os.O_WRONLY | os.O_NOCTTY)

def say(*words):
    os.write(console, f"<{{' '.join(map(str, words))}}>\\r\\n".encode())

def dial(cid, port):
    with socket.socket(socket.AF_VSOCK, socket.SOCK_STREAM) as sock:
        try:
            sock.connect((cid, port))
        except OSError as error:
            return say(cid, port, "unreachable")
        say(cid, port, "connected")
        try:
            sock.sendall({hello!r})
            say(cid, port, "heard" if sock.recv(4096) else "closed")
        except OSError:
            say(cid, port, "closed")

def give_up_vsock():
    for place in {places!r}:
        threading.Thread(target=dial, args=place, daemon=True).start()
"""
"""In the place of the module that closes vsock to everything in the guest: a VM of the host's own making."""


def said(guest: vm.Guest, cid: int, port: int) -> list[str]:
    """What the dialler has said of an address so far."""
    assert guest.qemu.poll() is None, guest.console()
    return re.findall(f"<{cid} {port} (.*)>", guest.console())


def wait_until_said(guest: vm.Guest, cid: int, port: int, *words: str) -> None:
    """The last of which has no other behind it."""
    deadline = time.monotonic() + 240
    while not (found := said(guest, cid, port)) or found[-1] not in words:
        assert time.monotonic() < deadline, guest.console()
        time.sleep(0.1)


def test_R59_neither_another_vm_nor_the_guest_itself_is_heard(tmp_path: Path) -> None:
    places = [(cid, GUEST_PORT) for cid in (VICTIM, *ITSELF)] + [(VICTIM, EMULATED_SECURE_PROCESSOR_PORT)]
    tree = Tree()
    source = DIALLER.format(hello=request("Hello", b""), places=places)
    tree.file("usr/lib/parma/parma_guest/confine.py", source.encode())
    initrd = tmp_path / "initrd"
    initrd.write_bytes(archive(tree) + (vm.IMAGE / "initrd.img").read_bytes())
    policy = vm.policy_text()
    with (
        vm.running(tmp_path / "v", tee="emulated", neighbours=True) as victim,
        vm.boot(tmp_path / "n", tee="emulated", initrd=initrd, beside=victim) as neighbour,
    ):
        # The device between them carries it there; the enforcer looks at who it is and hangs up.
        wait_until_said(neighbour, VICTIM, GUEST_PORT, "closed")
        assert said(neighbour, VICTIM, GUEST_PORT) == ["connected", "closed"]
        for cid in ITSELF:
            wait_until_said(neighbour, cid, GUEST_PORT, "unreachable", "closed")
            assert "heard" not in said(neighbour, cid, GUEST_PORT)
        # Nor does it become the secure processor of the other, though it was the first to call.
        wait_until_said(neighbour, VICTIM, EMULATED_SECURE_PROCESSOR_PORT, "connected")
        vm.SecureProcessor(tmp_path / "keys", hashlib.sha256(policy).digest()).serve(victim)
        victim.set_policy(policy)
        wait_until_said(neighbour, VICTIM, EMULATED_SECURE_PROCESSOR_PORT, "closed")
