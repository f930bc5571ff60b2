# SPDX-License-Identifier: Apache-2.0
"""The inventory of what the host controls is complete: protocol, command line, devices, owners, tests.

See the head of inventory.toml for how to add to it.
"""

from __future__ import annotations

import ast
import importlib
import itertools
import tomllib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest

from parma_shim.vm import disks
from parma_shim.vm.command import Card, Wiring, qemu_arguments
from parma_shim.vm.vsock import KernelVsock, UserVsock
from parma_snp.launch import qemu_arguments as snp_arguments
from parma_wire import guest_pb2 as pb
from tests.hostile import table
from tests.snp.test_launch import LAUNCH, QEMU
from tests.vm.support import spec

INVENTORY: dict[str, list[dict[str, Any]]] = tomllib.loads(Path(__file__).with_name("inventory.toml").read_text())
ENTRIES = [(kind, entry) for kind in ("message", "device", "option", "machine") for entry in INVENTORY[kind]]
MACHINE = {"fw_cfg", "acpi", "time", "cpuid", "entropy", "interrupts", "network", "scheduling", "reset"}
ADD = "add it to tests/hostile/inventory.toml, whose head says how"


def reachable(kinds: Iterable[Any]) -> dict[str, set[str]]:
    """Fields of these messages and of all that are inside of them, by the message's name."""
    found: dict[str, set[str]] = {}
    waiting = list(kinds)
    while waiting:
        kind = waiting.pop()
        if kind.name in found or kind.GetOptions().map_entry:
            continue
        found[kind.name] = {field.name for field in kind.fields}
        waiting += [field.message_type for field in kind.fields if field.message_type is not None]
    return found


def from_the_host() -> dict[str, set[str]]:
    """Every message that the guest reads."""
    services = pb.DESCRIPTOR.services_by_name
    requests = [method.input_type for name in ("Guest", "Streams") for method in services[name].methods]
    answers = [method.output_type for method in services["EmulatedSecureProcessor"].methods]
    return reachable([*requests, *answers])


def test_R67_every_field_of_every_request_has_an_owner_and_a_test() -> None:
    listed: dict[str, set[str]] = {}
    for entry in INVENTORY["message"]:
        fields = listed.setdefault(entry["name"], set())
        assert not fields & set(entry["fields"]), entry["name"]
        fields |= set(entry["fields"])
    actual = from_the_host()
    missing = {name: fields - listed.get(name, set()) for name, fields in actual.items()}
    assert {name: fields for name, fields in missing.items() if fields or name not in listed} == {}, ADD
    assert {name: fields - actual[name] for name, fields in listed.items() if fields - actual[name]} == {}


def command_lines() -> Iterator[list[str]]:
    """Every shape of QEMU's command line."""
    image = Path("/image")
    kernel = ["-device", "vhost-vsock-pci,guest-cid=5,vhostfd=9"]
    user = ["-chardev", "socket,id=vsock,path=/x", "-device", "vhost-user-vsock-pci,chardev=vsock"]
    for vsock in (kernel, user):
        wiring = Wiring(monitor=7, console=8, vsock=vsock)
        for tee, accelerator in (("none", "tcg"), ("emulated", "kvm")):
            connected = spec(image, tee=tee)._replace(cards=(Card("02:00:00:00:00:01", 9),))
            yield qemu_arguments(connected, wiring, accelerator=accelerator, data_dir=Path("/data"))
        snp = snp_arguments(LAUNCH, QEMU)
        yield qemu_arguments(spec(image, tee="snp"), wiring, accelerator="kvm", data_dir=None, snp=snp)


def test_R67_every_option_and_device_of_qemu_is_listed() -> None:
    options = {entry["name"] for entry in INVENTORY["option"]}
    devices = {entry["driver"] for entry in INVENTORY["device"]}
    used: set[str] = set()
    attached: set[str] = set()
    for arguments in command_lines():
        used |= {word for word in arguments if word.startswith("-")}
        attached |= {after.partition(",")[0] for word, after in itertools.pairwise(arguments) if word == "-device"}
    attached |= drivers_attached_later()
    assert used == options, ADD
    assert attached == devices, ADD


def drivers_attached_later() -> set[str]:
    """Drivers in what the shim adds with the monitor's device_add: only one module does."""
    shim = Path(disks.__file__).parents[1]
    adding = [path.name for path in shim.rglob("*.py") if '"device_add"' in path.read_text()]
    assert adding == ["disks.py"], ADD
    found = set()
    for node in ast.walk(ast.parse(Path(disks.__file__).read_text())):
        if isinstance(node, ast.Dict):
            values = {
                key.value: value.value
                for key, value in zip(node.keys, node.values, strict=True)
                if isinstance(key, ast.Constant) and isinstance(value, ast.Constant)
            }
            if "driver" in values and any(isinstance(key, ast.Constant) and key.value == "bus" for key in node.keys):
                found.add(str(values["driver"]))
    return found


def test_both_kinds_of_vsock_are_among_the_command_lines() -> None:
    devices = {entry["driver"] for entry in INVENTORY["device"]}
    for kind in (KernelVsock, UserVsock):
        source = Path(importlib.import_module(kind.__module__).__file__ or "").read_text()
        assert sum(driver in source for driver in devices) == 2


@pytest.mark.parametrize(("kind", "entry"), ENTRIES, ids=[e.get("name") or e["driver"] for _, e in ENTRIES])
def test_R67_owner_and_tests_of_each_input_exist(kind: str, entry: dict[str, Any]) -> None:
    allowed = {"name", "driver", "what", "owner", "fields", "tests", "unseen"}
    assert set(entry) <= allowed
    if kind == "option" and "unseen" in entry:
        assert set(entry) == {"name", "unseen"}
        return
    module, _, name = entry["owner"].partition(":")
    assert hasattr(importlib.import_module(module), name), entry["owner"]
    assert entry["tests"]
    assert [test for test in entry["tests"] if not table.exists(test)] == []


def test_R67_what_every_machine_has_is_listed() -> None:
    assert {entry["name"] for entry in INVENTORY["machine"]} == MACHINE


def test_there_is_a_network_device_only_where_the_inventory_says_so() -> None:
    network = next(entry for entry in INVENTORY["machine"] if entry["name"] == "network")
    devices = [entry["driver"] for entry in INVENTORY["device"] if "net" in entry["driver"]]
    assert bool(devices) != ("no network device" in network["what"])


def modules_of_the_image() -> list[str]:
    """Paths of the guest image's files, without their directory."""
    from parma_image import manifest
    from tests.guest import vm_harness as vm

    if vm.missing():
        pytest.skip(vm.missing())
    return [entry.path for entry in manifest.load(vm.IMAGE).files]


def test_R65_the_host_gives_no_random_numbers() -> None:
    for arguments in command_lines():
        assert not [word for word in arguments if "rng" in word or "egd" in word]
    assert not [path for path in modules_of_the_image() if path.endswith(".ko") and "rng" in path]


CLOCKS = {"time", "time_ns", "localtime", "gmtime", "now", "utcnow", "today", "ctime", "asctime", "strftime"}


def test_R65_no_decision_in_the_guest_depends_on_a_clock() -> None:
    rooms = ("guest/parma_guest", "policy/parma_policy/framework", "policy/parma_policy/signed", "cose/parma_cose")
    used = []
    for room in rooms:
        for path in (table.ROOT / room).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text())):
                if isinstance(node, ast.Attribute) and node.attr in CLOCKS:
                    owner = ast.unparse(node.value)
                    if owner in ("time", "datetime", "date", "datetime.datetime"):
                        used.append(f"{path.name}:{node.lineno} {owner}.{node.attr}")
    assert used == []


def test_R08_nothing_in_the_guest_can_share_files_with_the_host() -> None:
    for arguments in command_lines():
        assert not [word for word in arguments if any(name in word for name in ("9p", "virtiofs", "fs-pci", "fsdev"))]
    modules = [path for path in modules_of_the_image() if path.endswith(".ko")]
    assert modules
    assert not [
        path for path in modules if any(f"/{name}" in path for name in ("9p", "virtiofs", "nfs", "cifs", "vboxsf"))
    ]


def test_R73_nothing_in_the_guest_unpacks_archives() -> None:
    files = modules_of_the_image()
    names = {path.rpartition("/")[2].partition(".")[0] for path in files}
    assert not names & {
        "tarfile",
        "zipfile",
        "zipimport_archive",
        "shutil",
        "lzma",
        "bz2",
        "gzip",
        "zstandard",
        "tar",
        "cpio",
    }
