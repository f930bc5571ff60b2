# SPDX-License-Identifier: Apache-2.0
"""The guest's resource use in the form that containerd's collectors know.

containerd's own metrics read only the type of the *host's* cgroup mode, whatever the guest has; the guest always has
version 2.
"""

from __future__ import annotations

import os
from collections.abc import Iterable

from google.protobuf.any_pb2 import Any

from parma_shim.api import cgroups_v1_pb2 as v1
from parma_shim.api import cgroups_v2_pb2 as v2
from parma_wire import guest_pb2

_UNLIMITED = (1 << 64) - 1


def host_is_unified(root: str = "/sys/fs/cgroup") -> bool:
    """Whether the host uses cgroup version 2 alone."""
    return os.path.exists(f"{root}/cgroup.controllers")  # noqa: PTH110 - no need of a Path


def total(stats: Iterable[guest_pb2.StatsResponse]) -> guest_pb2.StatsResponse:
    """The sum of several containers'; limits add up to none as soon as one has none."""
    result = guest_pb2.StatsResponse()
    unlimited = {"memory_limit": False, "pids_limit": False}
    for one in stats:
        for field in one.DESCRIPTOR.fields:
            value = getattr(one, field.name)
            if field.name in unlimited and value in (0, _UNLIMITED):
                unlimited[field.name] = True
            else:
                setattr(result, field.name, min(getattr(result, field.name) + value, _UNLIMITED))
    if unlimited["memory_limit"]:
        result.memory_limit = _UNLIMITED
    if unlimited["pids_limit"]:
        result.pids_limit = 0
    return result


def encode(stats: guest_pb2.StatsResponse, *, unified: bool) -> Any:
    """An ``io.containerd.cgroups.v2.Metrics`` or ``.v1.Metrics``; the type URL has no prefix."""
    message = _version_2(stats) if unified else _version_1(stats)
    return Any(type_url=message.DESCRIPTOR.full_name, value=message.SerializeToString())


def _version_2(stats: guest_pb2.StatsResponse) -> v2.Metrics:
    return v2.Metrics(
        pids=v2.PidsStat(current=stats.pids_current, limit=stats.pids_limit),
        cpu=v2.CPUStat(
            usage_usec=stats.cpu_usage_us,
            user_usec=stats.cpu_user_us,
            system_usec=stats.cpu_system_us,
            nr_periods=stats.cpu_nr_periods,
            nr_throttled=stats.cpu_nr_throttled,
            throttled_usec=stats.cpu_throttled_us,
        ),
        memory=v2.MemoryStat(
            anon=stats.memory_anon,
            file=stats.memory_file,
            inactive_file=stats.memory_inactive_file,
            pgfault=stats.memory_page_faults,
            pgmajfault=stats.memory_major_page_faults,
            usage=stats.memory_usage,
            usage_limit=stats.memory_limit or _UNLIMITED,
        ),
        memory_events=v2.MemoryEvents(oom=stats.oom_events, oom_kill=stats.oom_kill_events),
        io=v2.IOStat(usage=[v2.IOEntry(rbytes=stats.io_read_bytes, wbytes=stats.io_write_bytes)]),
    )


def _version_1(stats: guest_pb2.StatsResponse) -> v1.Metrics:
    return v1.Metrics(
        pids=v1.PidsStat(current=stats.pids_current, limit=stats.pids_limit),
        cpu=v1.CPUStat(
            usage=v1.CPUUsage(
                total=stats.cpu_usage_us * 1000, user=stats.cpu_user_us * 1000, kernel=stats.cpu_system_us * 1000
            ),
            throttling=v1.Throttle(
                periods=stats.cpu_nr_periods,
                throttled_periods=stats.cpu_nr_throttled,
                throttled_time=stats.cpu_throttled_us * 1000,
            ),
        ),
        memory=v1.MemoryStat(
            cache=stats.memory_file,
            rss=stats.memory_anon,
            pg_fault=stats.memory_page_faults,
            pg_maj_fault=stats.memory_major_page_faults,
            inactive_file=stats.memory_inactive_file,
            total_cache=stats.memory_file,
            total_rss=stats.memory_anon,
            total_pg_fault=stats.memory_page_faults,
            total_pg_maj_fault=stats.memory_major_page_faults,
            total_inactive_file=stats.memory_inactive_file,
            usage=v1.MemoryEntry(usage=stats.memory_usage, limit=stats.memory_limit or _UNLIMITED),
        ),
        memory_oom_control=v1.MemoryOomControl(oom_kill=stats.oom_kill_events),
        blkio=v1.BlkIOStat(
            io_service_bytes_recursive=[
                v1.BlkIOEntry(op="Read", value=stats.io_read_bytes),
                v1.BlkIOEntry(op="Write", value=stats.io_write_bytes),
            ]
        ),
    )
