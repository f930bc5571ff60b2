# SPDX-License-Identifier: Apache-2.0
"""What `./dev bench` makes of what the kernel says."""

from __future__ import annotations

from devtool.bench.pod_memory import Memory, qemu_parts

SMAPS = """\
55d0c0000000-55d0c1000000 r-xp 00000000 fe:00 123 /usr/bin/qemu-system-x86_64
Rss:               40960 kB
Pss:               20480 kB
VmFlags: rd ex mr mw me sd
7f0000000000-7f0020000000 rw-s 00000000 00:01 2049 /memfd:memory-backend-memfd (deleted)
Rss:              102400 kB
Pss:               51200 kB
Pss_Dirty:         51200 kB
VmFlags: rd wr sh mr mw me ms sd
7f0020000000-7f0028000000 rwxp 00000000 00:00 0
Rss:                3072 kB
Pss:                3072 kB
7f0030000000-7f0040000000 rw-s 20000000 00:01 2049 /memfd:memory-backend-memfd (deleted)
Rss:                2048 kB
Pss:                1024 kB
"""


def test_the_guests_memory_and_translated_code_are_told_from_qemus_own() -> None:
    expected = {"guest": Memory(102.0, 51.0), "code": Memory(3.0, 3.0), "rest": Memory(40.0, 20.0)}
    assert qemu_parts(SMAPS) == expected
