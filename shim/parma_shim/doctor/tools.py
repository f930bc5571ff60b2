# SPDX-License-Identifier: Apache-2.0
"""Probes of what every container needs whatever the tee: tools, vsock, guest image, directories."""

from __future__ import annotations

from typing import Final

from parma_shim.doctor.host import Surroundings
from parma_shim.vm.vsock import VHOST_VSOCK
from parma_snp.checks import Outcome, Probe, Problem, ok
from parma_wire.errors import ParmaError

_MODULES: Final = ("google.protobuf", "grpc", "cryptography", "sevsnpmeasure")

NO_QEMU: Final = Problem(
    "fail",
    "{path} is not a program",
    "Each container or pod runs in a QEMU of its own.",
    "install qemu-system-x86, or set qemu in the configuration",
)


def _examine_qemu(host: Surroundings) -> Outcome:
    path = str(host.config.qemu)
    return ok(path) if host.executable(path) else NO_QEMU.found(path=path)


NO_VSOCK: Final = Problem(
    "fail",
    f"neither {VHOST_VSOCK} nor the program {{program}}",
    "The shim talks to the guest over vsock and nothing else.",
    "modprobe vhost_vsock; or install vhost-device-vsock and set vhost_device_vsock in the configuration",
)
VSOCK_DENIED: Final = Problem(
    "fail",
    f"{VHOST_VSOCK}: {{reason}}",
    "The user may not use the kernel's vsock.",
    "run as root (as containerd's shims do), or give the group kvm access by a udev rule",
)
VSOCK_USER: Final = Problem(
    "warn",
    f"no {VHOST_VSOCK}; {{program}} takes its place",
    "It works, with one process more per VM.",
    "modprobe vhost_vsock",
)


def _examine_vsock(host: Surroundings) -> Outcome:
    problem = host.openable(str(VHOST_VSOCK))
    if problem == "":
        return ok(f"{VHOST_VSOCK} can be opened")
    if problem is not None:
        return VSOCK_DENIED.found(reason=problem)
    program = str(host.config.vhost_device_vsock or "vhost-device-vsock")
    return VSOCK_USER.found(program=program) if host.executable(program) else NO_VSOCK.found(program=program)


NO_SETPRIV: Final = Problem(
    "fail",
    "{path} is not a program",
    "It ties QEMU's life to the shim's, so that a killed shim leaves no VM behind.",
    "install util-linux, or set setpriv in the configuration",
)


def _examine_setpriv(host: Surroundings) -> Outcome:
    path = str(host.config.setpriv)
    return ok(path) if host.executable(path) else NO_SETPRIV.found(path=path)


NO_MODULES: Final = Problem(
    "fail",
    "{python} cannot import {modules}",
    "Helper processes read containerd's API, verify evidence and compute measurements with them.",
    "pip install 'parma[shim]' for this interpreter, or set python in the configuration",
)
NO_PYTHON: Final = Problem(
    "fail", "{python} does not run", "Helper processes need a Python interpreter.", "set python in the configuration"
)
_IMPORT: Final = (
    "import importlib.util, sys; "
    "print(' '.join(name for name in sys.argv[1:] if importlib.util.find_spec(name.partition('.')[0]) is None))"
)


def _examine_helpers(host: Surroundings) -> Outcome:
    python = str(host.config.python)
    answer = host.run([python, "-c", _IMPORT, *_MODULES])
    if answer is None:
        return NO_PYTHON.found(python=python)
    missing = answer.split()
    return NO_MODULES.found(python=python, modules=", ".join(missing)) if missing else ok(python)


NO_IMAGE: Final = Problem(
    "fail",
    "{reason}",
    "There is no guest to start, or half of one.",
    "parma image build DIR, with DIR as image_dir in the configuration",
)
WRONG_IMAGE: Final = Problem(
    "fail",
    "{path} is not the file that the manifest describes",
    "A truncated or half-replaced image: its guest would fail attestation.",
    "parma image build DIR",
)


def _examine_image(host: Surroundings) -> Outcome:
    try:
        image = host.image()
    except ParmaError as error:
        return NO_IMAGE.found(reason=error.message)
    for file in image.files:
        if host.sha256(file) != file.sha256:
            return WRONG_IMAGE.found(path=file.path)
    return ok(f"{host.config.image_dir}, version {image.version}, hashes as in its manifest")


NO_SHAPES: Final = Problem(
    "fail",
    "the manifest has no measurement for tee = {tee!r}",
    "A VM without a published measurement cannot be verified by anyone.",
    "parma image build DIR, without leaving measurements out",
)
NO_SHAPE: Final = Problem(
    "warn",
    "no measurement for the configured {vcpus} vCPUs; there are {shapes}",
    "The next larger shape is used.",
    "set vcpus in the configuration to one of these",
)
SHAPES_SKIPPED: Final = Problem("skip", "no guest image, or no tee", "See image.manifest.", "see image.manifest")


def _examine_shapes(host: Surroundings) -> Outcome:
    tee = host.config.tee
    try:
        image = host.image()
    except ParmaError:
        return SHAPES_SKIPPED.found()
    if tee == "none":
        return SHAPES_SKIPPED.found()
    shapes = image.shapes(tee)
    text = ", ".join(map(str, shapes))
    if not shapes:
        return NO_SHAPES.found(tee=tee)
    if host.config.vcpus not in shapes:
        return NO_SHAPE.found(vcpus=host.config.vcpus, shapes=text)
    return ok(f"measurements for {text} vCPUs")


NOT_WRITABLE: Final = Problem(
    "fail",
    "{path} cannot be written",
    "The shim keeps sockets, converted layers and scratch space there.",
    "run as root (as containerd's shims do), or set state_dir and data_dir in the configuration",
)


def _examine_directories(host: Surroundings) -> Outcome:
    for path in (host.config.state_dir, host.config.data_dir):
        existing = next(parent for parent in (path, *path.parents) if host.writable(str(parent)) is not None)
        if not host.writable(str(existing)):
            return NOT_WRITABLE.found(path=path)
    return ok(f"{host.config.state_dir} and {host.config.data_dir}")


NO_POLICIES: Final = Problem(
    "warn",
    "{paths} does not exist",
    "The annotation io.parma.policy-file names a file below it; io.parma.policy carries a policy by itself.",
    "make the directory, or set policy_dirs in the configuration",
)


def _examine_policies(host: Surroundings) -> Outcome:
    missing = [str(path) for path in host.config.policy_dirs if host.writable(str(path)) is None]
    return NO_POLICIES.found(paths=", ".join(missing)) if missing else ok(", ".join(map(str, host.config.policy_dirs)))


CGROUP_V1: Final = Problem(
    "warn",
    "cgroups of the first version, or of both",
    "The guest has its own cgroups, and the host accounts for the VM all the same; newer Kubernetes wants version 2.",
    "boot with systemd.unified_cgroup_hierarchy=1",
)


def _examine_cgroups(host: Surroundings) -> Outcome:
    return ok("version 2") if host.text("/sys/fs/cgroup/cgroup.controllers") is not None else CGROUP_V1.found()


PROBES: Final[tuple[Probe[Surroundings], ...]] = (
    Probe("tools.qemu", "QEMU", _examine_qemu, (NO_QEMU,)),
    Probe("tools.vsock", "virtio-vsock on the host", _examine_vsock, (NO_VSOCK, VSOCK_DENIED, VSOCK_USER)),
    Probe("tools.setpriv", "setpriv", _examine_setpriv, (NO_SETPRIV,)),
    Probe(
        "tools.python", "an interpreter with the libraries of the helpers", _examine_helpers, (NO_MODULES, NO_PYTHON)
    ),
    Probe("image.manifest", "a guest image that matches its manifest", _examine_image, (NO_IMAGE, WRONG_IMAGE)),
    Probe(
        "image.measurements",
        "a published measurement for the configured VM",
        _examine_shapes,
        (NO_SHAPES, NO_SHAPE, SHAPES_SKIPPED),
    ),
    Probe("host.directories", "state_dir and data_dir", _examine_directories, (NOT_WRITABLE,)),
    Probe("host.policies", "policy_dirs", _examine_policies, (NO_POLICIES,)),
    Probe("host.cgroups", "cgroups version 2", _examine_cgroups, (CGROUP_V1,)),
)
