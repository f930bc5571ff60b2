# SPDX-License-Identifier: Apache-2.0
"""The log fifo."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from parma_shim.log import MAX_LINE, Log, quote


@pytest.fixture
def fifo(tmp_path: Path) -> Iterator[tuple[Path, int]]:
    path = tmp_path / "log"
    os.mkfifo(path)
    reader = os.open(path, os.O_RDWR | os.O_NONBLOCK)
    yield path, reader
    os.close(reader)


def test_a_line_is_one_that_containerd_writes_itself(fifo: tuple[Path, int]) -> None:
    path, reader = fifo
    log = Log(str(path), namespace="ns", identity="an id")
    log.warning('it said "no"')
    line = os.read(reader, 8192).decode()
    assert re.fullmatch(
        r'time="\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{9}Z" level=warning msg="it said \\"no\\"" '
        r'runtime=io\.containerd\.parma\.v2 namespace=ns id="an id"\n',
        line,
    )
    log.close()


def test_debug_lines_are_for_debug_level(fifo: tuple[Path, int]) -> None:
    path, reader = fifo
    log = Log(str(path), namespace="ns", identity="x")
    log.debug("detail")
    with pytest.raises(BlockingIOError):
        os.read(reader, 1)
    log.close()
    log = Log(str(path), namespace="ns", identity="x", debug=True)
    log.debug("detail")
    assert b"level=debug msg=detail" in os.read(reader, 8192)
    log.close()


def test_a_full_fifo_never_blocks_and_the_loss_is_told(fifo: tuple[Path, int]) -> None:
    path, reader = fifo
    log = Log(str(path), namespace="ns", identity="x")
    for _ in range(1000):
        log("x" * 500)
    assert log.dropped > 0
    while True:
        try:
            os.read(reader, 65536)
        except BlockingIOError:
            break
    lost = log.dropped
    log("again")
    text = os.read(reader, 65536).decode()
    assert f"{lost} log lines were lost" in text
    assert "msg=again" in text
    assert log.dropped == 0
    log.close()


def test_a_line_is_cut_to_what_a_pipe_takes_at_once(fifo: tuple[Path, int]) -> None:
    path, reader = fifo
    log = Log(str(path), namespace="ns", identity="x")
    log("é" * 10_000)
    data = os.read(reader, 65536)
    assert len(data) <= MAX_LINE
    assert data.decode().endswith('..." runtime=io.containerd.parma.v2 namespace=ns id=x\n')
    log.close()


def test_without_a_fifo_nothing_happens(tmp_path: Path) -> None:
    log = Log(str(tmp_path / "none"), namespace="ns", identity="x")
    log("into the void")
    log.close()
    log("after the end")
    assert list(tmp_path.iterdir()) == []


@given(st.text())
def test_quoted_text_is_one_line_of_printable_characters(text: str) -> None:
    quoted = quote(text)
    assert quoted.isprintable()
    assert quoted.startswith('"') or (quoted and " " not in quoted)
