# SPDX-License-Identifier: Apache-2.0
"""A guest in a real VM, as little else as possible: QEMU, vhost-device-vsock, disks, and the wire protocol.

There is no shim here: tests play the host themselves, honest or not.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import select
import socket
import subprocess
import tarfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

from parma_policy.generate import erofs
from parma_policy.layers import verity
from parma_policy.layers.blobs import LayerBlob
from parma_policy.layers.convert import LayerImage, layer_to_image
from parma_shim.vm.qmp import Qmp
from parma_wire import guest_pb2 as pb
from parma_wire.errors import from_code
from parma_wire.limits import (
    DOCUMENT_CHUNK,
    EMULATED_SECURE_PROCESSOR_PORT,
    GUEST_PORT,
    MAX_SEND,
    POLICY_CHUNK,
    STREAM_WINDOW,
)
from ttrpc import Client, ClientStream, Server, TtrpcError

ROOT = Path(__file__).resolve().parents[2]
PREFIX = Path(os.environ.get("PARMA_TEST_PREFIX", ROOT / ".dev/prefix"))
IMAGE = Path(os.environ.get("PARMA_TEST_IMAGE", ROOT / ".dev/image"))
QEMU = PREFIX / "bin/qemu-system-x86_64"
VHOST = PREFIX / "bin/vhost-device-vsock"
BUSYBOX = PREFIX / "bin/busybox"

BOOT_TIMEOUT = 240.0
CALL_TIMEOUT = 60.0
CONTAINER = "c0" * 32
NEIGHBOUR = 4
"""CID of a guest beside another."""
PATH_VARIABLE = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
CAPABILITIES = [
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_FSETID",
    "CAP_FOWNER",
    "CAP_MKNOD",
    "CAP_NET_RAW",
    "CAP_SETGID",
    "CAP_SETUID",
    "CAP_SETFCAP",
    "CAP_SETPCAP",
    "CAP_NET_BIND_SERVICE",
    "CAP_SYS_CHROOT",
    "CAP_KILL",
    "CAP_AUDIT_WRITE",
]  # as lists they are three times as long


def missing() -> str:
    """Why there can be no VM here; "" when there can."""
    for path in (QEMU, VHOST, BUSYBOX, IMAGE / "manifest.json"):
        if not path.exists():
            return f"{path.name} is not there: run ./dev test"
    return ""


# Images


def layer_tar(files: dict[str, bytes], *, busybox: bool = False) -> bytes:
    """A layer; a name that ends in "/" is a directory."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as tar:

        def add(name: str, kind: bytes, data: bytes = b"", link: str = "", mode: int = 0o755) -> None:
            entry = tarfile.TarInfo(name)
            entry.type, entry.size, entry.linkname, entry.mode = kind, len(data), link, mode
            tar.addfile(entry, io.BytesIO(data))

        for name, data in files.items():
            if name.endswith("/"):
                add(name.rstrip("/"), tarfile.DIRTYPE)
            else:
                add(name, tarfile.REGTYPE, data)
        if busybox:
            for name in ("bin", "etc", "proc", "sys", "dev", "run", "tmp"):
                add(name, tarfile.DIRTYPE, mode=0o1777 if name == "tmp" else 0o755)
            add("etc/passwd", tarfile.REGTYPE, b"root:x:0:0::/root:/bin/sh\napp:x:1000:1000::/:/bin/sh\n", mode=0o644)
            add("etc/group", tarfile.REGTYPE, b"root:x:0:\napp:x:1000:\n", mode=0o644)
            add("bin/busybox", tarfile.REGTYPE, BUSYBOX.read_bytes())
            applets = subprocess.run(
                [str(BUSYBOX), "--list"], check=True, capture_output=True, text=True
            ).stdout.split()
            for applet in applets:
                if applet != "busybox":
                    add(f"bin/{applet}", tarfile.LNKTYPE, link="bin/busybox")
    return buffer.getvalue()


def write_layer(path: Path, tar: bytes) -> LayerImage:
    """The verity image of a layer."""
    with path.open("w+b") as out:
        return layer_to_image(io.BytesIO(tar), out)


def write_erofs_layer(path: Path, tar: bytes) -> LayerImage:
    """The same as containerd makes it: erofs, with a dm-verity tree behind the data."""
    diff_id = f"sha256:{hashlib.sha256(tar).hexdigest()}"
    blob = LayerBlob(diff_id, diff_id, "", None, len(tar), opener=lambda: io.BytesIO(tar))
    erofs.make_image(blob, str(PREFIX / "bin/mkfs.erofs"), path)
    blocks = path.stat().st_size // verity.BLOCK
    digests = bytearray()
    verity.append_digests(digests, path.read_bytes())
    tree, root_hash = verity.hash_device(digests)
    with path.open("ab") as file:
        file.writelines(tree)
    return LayerImage(root_hash, blocks * verity.BLOCK, path.stat().st_size, blocks, diff_id)


# Policies and requests


def container_object(layers: Sequence[LayerImage], command: Sequence[str], **changes: object) -> dict[str, object]:
    """A container of a policy; ``layers`` base first."""
    return {
        "command": list(command),
        "env_rules": [{"pattern": PATH_VARIABLE, "strategy": "string", "required": False}],
        "layers": [layer.root_hash for layer in layers],
        "mounts": [],
        "exec_processes": [],
        "signals": [9, 15],
        "user": {
            "user_idname": {"pattern": "", "strategy": "any"},
            "group_idnames": [{"pattern": "", "strategy": "any"}],
            "umask": "0022",
        },
        "capabilities": {**dict.fromkeys(("bounding", "effective", "permitted"), CAPABILITIES)}
        | {"inheritable": [], "ambient": []},
        "seccomp_profile_sha256": "",
        "allow_elevated": False,
        "working_dir": "/",
        "allow_stdio_access": True,
        "no_new_privileges": False,
        "attestation": [],
        **changes,
    }


def policy_text(*containers: dict[str, object], properties: bool = True, fragments: Sequence[object] = ()) -> bytes:
    """A policy as generators write it."""
    points = [
        "mount_device",
        "unmount_device",
        "mount_overlay",
        "unmount_overlay",
        "create_container",
        "exec_in_container",
        "exec_external",
        "shutdown_container",
        "signal_container_process",
        "plan9_mount",
        "plan9_unmount",
        "get_properties",
        "dump_stacks",
        "runtime_logging",
        "load_fragment",
        "scratch_mount",
        "scratch_unmount",
        "rw_mount_device",
        "rw_unmount_device",
    ]  # as lists they are three times as long
    return "\n".join(
        [
            "package policy",
            'api_version := "0.11.0"',
            'framework_version := "0.5.0"',
            f"fragments := {json.dumps(list(fragments))}",
            f"containers := {json.dumps(list(containers))}",
            f"allow_properties_access := {json.dumps(properties)}",
            "allow_unencrypted_scratch := false",
            *(f"{point} := data.framework.{point}" for point in points),
            'reason := {"errors": data.framework.errors}',
            "",
        ]
    ).encode()


def process(args: Sequence[str], **changes: Any) -> pb.Process:
    """A process as ``ctr`` would ask for it."""
    caps = pb.Capabilities(bounding=CAPABILITIES, effective=CAPABILITIES, permitted=CAPABILITIES)
    fields: dict[str, Any] = {"args": args, "env": [PATH_VARIABLE], "cwd": "/", "user": pb.User(), "capabilities": caps}
    return pb.Process(**{**fields, **changes})


# The VM


@dataclass
class Guest:
    """A running VM and a control connection to its enforcer."""

    directory: Path
    qemu: subprocess.Popen[bytes]
    vhost: subprocess.Popen[bytes]
    seconds_to_ready: float = 0.0
    clients: list[Client] = field(default_factory=list)

    def dial(self, port: int = GUEST_PORT) -> socket.socket:
        """A vsock stream to the guest."""
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        sock.settimeout(60)
        sock.connect(str(self.directory / "vsock"))
        sock.sendall(f"CONNECT {port}\n".encode())
        answer = b""
        while not answer.endswith(b"\n"):
            piece = sock.recv(1)
            if not piece:
                sock.close()
                raise ConnectionError("the guest does not listen")
            answer += piece
        sock.settimeout(None)
        return sock

    def connect(self) -> Client:
        """A ttrpc client of its own."""
        client = Client(self.dial(), write_chunk=MAX_SEND)
        self.clients.append(client)
        return client

    def call(self, method: str, request: Any, timeout: float = CALL_TIMEOUT) -> Any:
        """One request; raises the class of `parma_wire.errors` that the code stands for."""
        response = getattr(pb, f"{method}Response")
        try:
            return self.clients[0].call("parma.guest.v1.Guest", method, request, response, timeout=timeout)
        except TtrpcError as error:
            raise from_code(error.code, error.message) from error

    def set_policy(self, policy: bytes) -> bytes:
        """In pieces, then as a whole."""
        for offset in range(0, len(policy), POLICY_CHUNK):
            self.call("PutPolicy", pb.PutPolicyRequest(offset=offset, data=policy[offset : offset + POLICY_CHUNK]))
        digest: bytes = self.call("SetPolicy", pb.SetPolicyRequest(size=len(policy))).policy_sha256
        return digest

    def load_fragment(self, envelope: bytes) -> None:
        """In pieces, then as a whole."""
        for offset in range(0, len(envelope), DOCUMENT_CHUNK):
            piece = envelope[offset : offset + DOCUMENT_CHUNK]
            self.call("PutDocument", pb.PutDocumentRequest(offset=offset, data=piece))
        self.call("LoadFragment", pb.LoadFragmentRequest(size=len(envelope)))

    def stream(self, container: str, kind: int, exec_id: str = "") -> ClientStream:
        """An opened stream on a connection of its own."""
        stream = self.connect().stream("parma.guest.v1.Streams", "Stream", pb.StreamFrame)
        stream.send(
            pb.StreamFrame(open=pb.StreamOpen(container_id=container, exec_id=exec_id, kind=pb.StreamKind.Name(kind)))
        )
        return stream

    def read_all(self, container: str, kind: int = pb.STDOUT, exec_id: str = "", timeout: float = 120) -> bytes:
        """The whole of a process's output, acknowledged as it comes."""
        stream = self.stream(container, kind, exec_id)
        received = bytearray()
        unacknowledged = 0
        while True:
            frame = stream.recv(timeout)
            if frame is None or frame.eof:
                stream.close()
                return bytes(received)
            received += frame.data
            unacknowledged += len(frame.data)
            if unacknowledged >= STREAM_WINDOW // 2:
                stream.send(pb.StreamFrame(window_update=unacknowledged))
                unacknowledged = 0

    def mount_layer(self, lun: int, layer: LayerImage, number: int | None = None) -> str:
        """Layer on LUN ``lun``; its mount point."""
        target = f"/run/mounts/scsi/m{lun if number is None else number}"
        self.call(
            "MountDevice",
            pb.MountDeviceRequest(lun=lun, target=target, device_hash=layer.root_hash, data_blocks=layer.data_blocks),
        )
        return target

    def prepare(
        self, layers: Sequence[tuple[int, LayerImage]], container: str = CONTAINER, scratch_lun: int | None = None
    ) -> None:
        """Layers (base first), scratch and overlay of a container."""
        targets = [self.mount_layer(lun, layer) for lun, layer in layers]
        scratch = pb.MountScratchRequest(container_id=container)
        if scratch_lun is None:
            scratch.memory_bytes = 64 << 20
        else:
            scratch.lun = scratch_lun
        self.call("MountScratch", scratch)
        self.call("MountOverlay", pb.MountOverlayRequest(container_id=container, layer_targets=targets[::-1]))

    def create(self, args: Sequence[str], container: str = CONTAINER, **changes: Any) -> None:
        """CreateContainer; keyword arguments of `process` unless the message itself has the field."""
        request = pb.CreateContainerRequest(container_id=container)
        own = {name: changes.pop(name) for name in list(changes) if name in request.DESCRIPTOR.fields_by_name}
        request.MergeFrom(pb.CreateContainerRequest(process=process(args, **changes), **own))
        self.call("CreateContainer", request)

    def start(self, container: str = CONTAINER) -> None:
        """StartContainer."""
        self.call("StartContainer", pb.StartContainerRequest(container_id=container))

    def wait(self, container: str = CONTAINER, exec_id: str = "") -> int:
        """Exit status."""
        status: int = self.call(
            "WaitProcess", pb.WaitProcessRequest(container_id=container, exec_id=exec_id)
        ).exit_status
        return status

    @contextmanager
    def monitor(self) -> Iterator[Qmp]:
        """QEMU's monitor: what the host does to the machine itself."""
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        sock.connect(str(self.directory / "monitor"))
        monitor = Qmp(sock)
        try:
            monitor.negotiate(deadline=time.monotonic() + CALL_TIMEOUT)
            yield monitor
        finally:
            monitor.close()

    def console(self) -> str:
        """Everything the guest has written to its serial port."""
        with suppress(FileNotFoundError):
            return (self.directory / "console.log").read_text(errors="replace")
        return ""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for client in self.clients:
            client.close()
        for child in (self.qemu, self.vhost):
            child.kill()
            child.wait()


class SecureProcessor:
    """The host's emulated one, for one VM."""

    def __init__(self, directory: Path, host_data: bytes) -> None:
        from parma_snp.emulated import ensure_authority

        self.authority = ensure_authority(directory)
        self._host_data = host_data
        self.reports = 0

    def GetReport(self, request: pb.GetReportRequest, _context: object) -> pb.GetReportResponse:  # noqa: N802
        self.reports += 1
        report = self.authority.sign_report(
            report_data=request.report_data,
            host_data=self._host_data,
            measurement=bytes(48),
            report_id=bytes(32),
            vmpl=request.vmpl,
        )
        return pb.GetReportResponse(report=report)

    def GetDerivedKey(  # noqa: N802
        self, request: pb.GetDerivedKeyRequest, _context: object
    ) -> pb.GetDerivedKeyResponse:
        key = self.authority.derive_key(fields=request.guest_field_select, measurement=bytes(48))
        return pb.GetDerivedKeyResponse(key=key)

    def serve(self, guest: Guest) -> None:
        """On a connection of its own, for as long as the guest lives."""
        server = Server(write_chunk=MAX_SEND)
        server.register(pb.DESCRIPTOR.services_by_name["EmulatedSecureProcessor"], self)
        connection = guest.dial(EMULATED_SECURE_PROCESSOR_PORT)
        threading.Thread(target=server.serve_connection, args=(connection,), daemon=True).start()


def boot(
    directory: Path,
    disks: Sequence[Path] = (),
    *,
    writable: Sequence[Path] = (),
    tee: str = "none",
    memory_mib: int = 512,
    append: str = "",
    image: Path = IMAGE,
    initrd: Path | None = None,
    extra: Sequence[str] = (),
    keep: Sequence[int] = (),
    neighbours: bool = False,
    beside: Guest | None = None,
) -> Guest:
    """A booted guest with ``disks`` (then ``writable``) at LUN 0, 1, 2, ...; QEMU gets ``extra`` as it is.

    Its CID is 3. ``beside``: a guest with ``neighbours``, whose vsock device serves this one as well, as `NEIGHBOUR`.
    """
    directory.mkdir(parents=True, exist_ok=True)
    manifest = json.loads((image / "manifest.json").read_text())
    if beside is None:
        places = {3: directory, **({NEIGHBOUR: directory / "neighbour"} if neighbours else {})}
        vms = [f"--vm=guest-cid={cid},socket={at / 'vhost'},uds-path={at / 'vsock'}" for cid, at in places.items()]
        places[max(places)].mkdir(exist_ok=True)
        vhost = _spawn([str(VHOST), *vms], directory / "vhost.log")
    else:
        directory, vhost = beside.directory / "neighbour", beside.vhost
    _wait_for(lambda: (directory / "vhost").exists(), 60)
    arguments = [
        *(str(QEMU), "-name", "parma-test", "-nodefaults", "-no-user-config", "-no-reboot", "-display", "none"),
        *("-machine", "q35,memory-backend=ram1", "-m", f"{memory_mib}M", "-smp", "1"),
        *("-object", f"memory-backend-memfd,id=ram1,size={memory_mib}M,share=on"),
        *("-cpu", "qemu64,+ssse3,+sse4.1,+sse4.2,+popcnt,+rdrand,+cx16", "-accel", "tcg"),
        "-chardev",
        f"socket,id=console,path={directory / 'console'},server=on,wait=off,logfile={directory / 'console.log'}",
        *("-serial", "chardev:console"),
        *("-kernel", str(image / "vmlinuz"), "-initrd", str(initrd or image / "initrd.img")),
        *("-append", manifest["cmdline"][tee] + append),
        *("-chardev", f"socket,id=v,path={directory / 'vhost'}", "-device", "vhost-user-vsock-pci,chardev=v"),
        *("-device", "virtio-scsi-pci,id=scsi0"),
        *("-qmp", f"unix:{directory / 'monitor'},server=on,wait=off"),
        *extra,
    ]
    for lun, path in enumerate((*disks, *writable)):
        read_only = "on" if lun < len(disks) else "off"
        arguments += [
            *("-blockdev", f"driver=raw,node-name=d{lun},read-only={read_only},file.driver=file,file.filename={path}"),
            *("-device", f"scsi-hd,id=disk{lun},drive=d{lun},bus=scsi0.0,channel=0,scsi-id=0,lun={lun}"),
        ]
    return Guest(directory, _spawn(arguments, directory / "qemu.log", keep), vhost)


def _spawn(arguments: Sequence[str], log: Path, keep: Sequence[int] = ()) -> subprocess.Popen[bytes]:
    """A program that dies with the test run."""
    with log.open("wb") as output:
        return subprocess.Popen(
            ["setpriv", "--pdeathsig", "KILL", *arguments],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            pass_fds=keep,
        )


@contextmanager
def running(directory: Path, disks: Sequence[Path] = (), **options: Any) -> Iterator[Guest]:
    """`boot`, and the enforcer answers."""
    began = time.monotonic()
    with boot(directory, disks, **options) as guest:
        _wait_for_guest(guest)
        guest.seconds_to_ready = time.monotonic() - began
        yield guest


def _wait_for_guest(guest: Guest) -> None:
    def answers() -> bool:
        if guest.qemu.poll() is not None:
            raise RuntimeError(f"QEMU ended: {guest.console()[-2000:]}")
        if "parma: ready" not in guest.console():
            return False  # vhost-device-vsock may lose connections made before the guest's driver is up
        with suppress(OSError):
            guest.connect()
            return True
        return False

    _wait_for(answers, BOOT_TIMEOUT, guest)


def _wait_for(condition: Any, timeout: float, guest: Guest | None = None) -> None:
    deadline = time.monotonic() + timeout
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError(guest.console()[-3000:] if guest else "timed out")
        select.select([], [], [], 0.05)
