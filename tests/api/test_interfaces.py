# SPDX-License-Identifier: Apache-2.0
"""Our definitions are containerd's: names, numbers, types, bytes.

``containerd_api.txt`` was recorded from containerd's own modules by ``go_descriptors``.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from pathlib import Path

import pytest
from google.protobuf.any_pb2 import Any
from google.protobuf.descriptor import Descriptor, FieldDescriptor, FileDescriptor, ServiceDescriptor
from google.protobuf.timestamp_pb2 import Timestamp

import parma_shim.api
from parma_shim.api import bootstrap_pb2, event_service_pb2, events_pb2, runtime_options_pb2, task_pb2, types_pb2

RECORDED = set((Path(__file__).parent / "containerd_api.txt").read_text().splitlines())
NAMES = sorted(path.stem for path in Path(parma_shim.api.__file__).parent.glob("*_pb2.py"))

KINDS = {
    value: name.removeprefix("TYPE_").lower() for name, value in vars(FieldDescriptor).items() if name[:5] == "TYPE_"
}


def kind(field: FieldDescriptor) -> str:
    if field.message_type is not None:
        return field.message_type.full_name
    return KINDS[field.type] if field.enum_type is None else field.enum_type.full_name


def of_message(message: Descriptor) -> Iterator[str]:
    for field in message.fields:
        yield f"field {field.full_name} {field.number} {str(field.is_repeated).lower()} {kind(field)}"
    for nested in message.nested_types:
        yield from of_message(nested)


def of_service(service: ServiceDescriptor) -> Iterator[str]:
    for method in service.methods:
        streams = f"{str(method.client_streaming).lower()} {str(method.server_streaming).lower()}"
        yield f"method {method.full_name} {method.input_type.full_name} {method.output_type.full_name} {streams}"


def of_file(file: FileDescriptor) -> Iterator[str]:
    for message in file.message_types_by_name.values():
        yield from of_message(message)
    for enum in file.enum_types_by_name.values():
        yield from (f"value {enum.full_name} {value.name} {value.number}" for value in enum.values)
    for service in file.services_by_name.values():
        yield from of_service(service)


@pytest.mark.parametrize("name", NAMES)
def test_definitions_are_containerds(name: str) -> None:
    ours = set(of_file(importlib.import_module(f"parma_shim.api.{name}").DESCRIPTOR))
    assert ours
    assert ours - RECORDED == set()


@pytest.mark.parametrize(
    "service",
    ["containerd.task.v3.Task", "containerd.runtime.sandbox.v1.Sandbox", "containerd.services.events.ttrpc.v1.Events"],
)
def test_services_on_ttrpc_are_complete(service: str) -> None:
    ours = {line for name in NAMES for line in of_file(importlib.import_module(f"parma_shim.api.{name}").DESCRIPTOR)}
    theirs = {line for line in RECORDED if line.startswith(f"method {service}.")}
    assert theirs
    assert theirs <= ours


def test_task_v2_is_task_v3_under_another_name() -> None:
    def lines(package: str) -> set[str]:
        return {line.replace(package, "") for line in RECORDED if f" {package}." in line}

    assert lines("containerd.task.v2") == lines("containerd.task.v3")
    assert task_pb2.DESCRIPTOR.package == "containerd.task.v3"


def test_bootstrap_parameters_of_containerd_2_3_are_understood() -> None:
    options = runtime_options_pb2.Options(config_path="/etc/parma.toml").SerializeToString()
    assert options == b"\x12\x0f/etc/parma.toml"
    extension = b"\x0a\x19runtimeoptions.v1.Options" + b"\x12\x11" + options
    wire = (
        b"\x0a\x02z1"
        b"\x12\x07default"
        b"\x22\x052.3.4"
        b"\x2a\x0c/c.sock.ttrp"
        b"\x32\x07/c.sock"
        b"\x3a\x0f/bin/containerd"
        b"\x42\x30\x0a\x2e" + extension + b"\x4a\x11/run/containerd/s"
    )
    message = bootstrap_pb2.BootstrapParams.FromString(wire)
    assert (message.instance_id, message.namespace, message.containerd_version) == ("z1", "default", "2.3.4")
    assert (message.containerd_ttrpc_address, message.containerd_grpc_address) == ("/c.sock.ttrp", "/c.sock")
    assert (message.containerd_binary, message.socket_dir) == ("/bin/containerd", "/run/containerd/s")
    assert [item.value.type_url for item in message.extensions] == ["runtimeoptions.v1.Options"]
    assert message.SerializeToString() == wire


def test_exit_event_has_the_bytes_that_containerd_expects() -> None:
    event = events_pb2.TaskExit(container_id="c", id="e", pid=7, exit_status=137, exited_at=Timestamp(seconds=1))
    envelope = types_pb2.Envelope(
        timestamp=Timestamp(seconds=1),
        namespace="default",
        topic="/tasks/exit",
        event=Any(type_url="containerd.events.TaskExit", value=event.SerializeToString()),
    )
    wire = event_service_pb2.ForwardRequest(envelope=envelope).SerializeToString()
    body = bytes.fromhex("0a0163 120165 1807 208901 2a020801")
    assert event.SerializeToString() == body
    inner = b"\x0a\x02\x08\x01\x12\x07default\x1a\x0b/tasks/exit\x22\x2d\x0a\x1acontainerd.events.TaskExit"
    assert wire == b"\x0a\x49" + inner + b"\x12\x0f" + body
