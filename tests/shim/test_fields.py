# SPDX-License-Identifier: Apache-2.0
"""The small protobuf codec, held against the library."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from parma_shim import fields
from parma_shim.api import bootstrap_pb2, runtime_options_pb2, task_pb2


@given(st.text(), st.text(), st.sampled_from([-8, -4, 0, 4, 8]), st.text())
def test_what_the_library_writes_is_read(identity: str, namespace: str, level: int, version: str) -> None:
    params = bootstrap_pb2.BootstrapParams(
        instance_id=identity,
        namespace=namespace,
        log_level=level,  # type: ignore[arg-type]
        containerd_version=version,
    )
    found = fields.decode(params.SerializeToString())
    assert found is not None
    assert (fields.text(found, 1), fields.text(found, 2), fields.number(found, 3)) == (identity, namespace, level)
    assert fields.text(found, 4) == version


@given(st.integers(0, 2**32 - 1), st.integers(0, 2**32 - 1), st.integers(0, 2**62), st.integers(0, 999_999_999))
def test_what_is_written_is_what_the_library_reads(pid: int, status: int, seconds: int, nanos: int) -> None:
    stamp = fields.integer_field(1, seconds) + fields.integer_field(2, nanos)
    data = fields.integer_field(1, pid) + fields.integer_field(2, status) + fields.bytes_field(3, stamp)
    message = task_pb2.DeleteResponse.FromString(data)
    assert (message.pid, message.exit_status) == (pid, status)
    assert (message.exited_at.seconds, message.exited_at.nanos) == (seconds, nanos)


@given(st.binary(max_size=200))
def test_arbitrary_bytes_are_read_or_refused_and_never_crash(data: bytes) -> None:
    found = fields.decode(data)
    assert found is None or all(number >= 1 and kind in (0, 1, 2, 5) for number, kind, _ in found)


def test_a_truncated_message_is_refused_at_every_length() -> None:
    data = runtime_options_pb2.Options(type_url="t", config_path="/p").SerializeToString()
    whole = {0, len(data), 3}
    assert [size for size in range(len(data) + 1) if fields.decode(data[:size]) is not None] == sorted(whole)


def test_json_is_never_taken_for_a_message() -> None:
    assert fields.decode(b'{"version":3}') is None


def test_the_last_of_several_values_counts() -> None:
    data = fields.bytes_field(1, "old") + fields.bytes_field(1, "new")
    assert fields.text(fields.decode(data) or [], 1) == "new"


def test_text_that_is_not_utf8_is_no_text() -> None:
    assert fields.text(fields.decode(fields.bytes_field(1, b"\xff")) or [], 1) is None
