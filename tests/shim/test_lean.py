# SPDX-License-Identifier: Apache-2.0
"""The protobuf library without the parts that the daemon does not run."""

from __future__ import annotations

import json

from tests.shim.support import python_isolated

EVERY_MESSAGE = """
import json
from parma_shim import lean
prepared = lean.prepare()
from parma_shim.api import (cgroups_v1_pb2, cgroups_v2_pb2, event_service_pb2, events_pb2, process_pb2,
                            runc_options_pb2, task_pb2, types_pb2)
from parma_wire import guest_pb2
from google.protobuf import any_pb2, empty_pb2, timestamp_pb2

def fill(message, depth=0):
    for field in message.DESCRIPTOR.fields:
        if field.message_type is not None and depth < 3:
            if field.is_repeated:
                if not field.message_type.GetOptions().map_entry:
                    fill(getattr(message, field.name).add(), depth + 1)
            else:
                fill(getattr(message, field.name), depth + 1)
                getattr(message, field.name).SetInParent()
        elif field.message_type is None:
            value = {field.TYPE_STRING: "text", field.TYPE_BYTES: b"bytes", field.TYPE_BOOL: True}.get(field.type, 1)
            if field.is_repeated:
                getattr(message, field.name).append(value)
            else:
                setattr(message, field.name, value)
    return message

count = 0
for module in (cgroups_v1_pb2, cgroups_v2_pb2, event_service_pb2, events_pb2, process_pb2, runc_options_pb2,
               task_pb2, types_pb2, guest_pb2, any_pb2, timestamp_pb2, empty_pb2):
    for name in module.DESCRIPTOR.message_types_by_name:
        made = fill(getattr(module, name)())
        data = made.SerializeToString()
        again = type(made).FromString(data)
        assert again == made and again.SerializeToString() == data and repr(again) == repr(made), name
        copy = type(made)()
        copy.CopyFrom(made)
        assert copy == made and made.ByteSize() == len(data)
        count += 1
print(json.dumps([prepared, count, "google.protobuf.text_format" in sys.modules, "datetime" in sys.modules]))
"""


def test_every_message_works_in_a_process_prepared_so() -> None:
    prepared, count, text_format, datetime = json.loads(python_isolated(EVERY_MESSAGE))
    assert prepared
    assert count > 100
    assert not text_format
    assert not datetime


def test_it_comes_too_late_after_the_library_is_loaded() -> None:
    code = "from google.protobuf import any_pb2\nfrom parma_shim import lean\nprint(lean.prepare())"
    assert python_isolated(code).strip() == "False"


def test_everything_of_the_daemon_can_be_imported_in_a_process_prepared_so() -> None:
    code = (
        "from parma_shim import lean\nassert lean.prepare()\n"
        "from parma_shim import daemon, events, group\nfrom parma_shim.task import service\n"
        "unwanted = {'logging', 'subprocess', 'asyncio', 'ssl', 'hashlib', 'dataclasses', 'inspect', 'argparse',"
        " 'tomllib', 'datetime', 'grpc', 'cryptography', 'ctypes', 'tempfile', 'shutil', 'ipaddress'}\n"
        "print(sorted(unwanted & set(sys.modules)))"
    )
    assert python_isolated(code).strip() == "[]"
