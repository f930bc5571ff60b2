# SPDX-License-Identifier: Apache-2.0
"""Our client against containerd's Go server, containerd's Go client against our server."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from google.protobuf.empty_pb2 import Empty
from google.protobuf.wrappers_pb2 import Int32Value, StringValue

import ttrpc
from tests.ttrpc.support import ECHO, SECONDS, Echo
from tests.ttrpc.test_frames import GOLDEN_FRAME

SOURCE = Path(__file__).parent / "go_peer"


@pytest.fixture(scope="module")
def go_peer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    go = shutil.which("go") or shutil.which("/usr/local/go/bin/go")
    if go is None:
        pytest.skip("Go is not installed")
    binary = tmp_path_factory.mktemp("go") / "go_peer"
    built = subprocess.run(
        [go, "build", "-mod=readonly", "-o", str(binary), "."],
        cwd=SOURCE,
        env={**os.environ, "CGO_ENABLED": "0", "GOTOOLCHAIN": "local"},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    if built.returncode != 0:
        if "dial tcp" in built.stderr or "proxyconnect" in built.stderr or "module lookup disabled" in built.stderr:
            pytest.skip("the Go module proxy is out of reach")
        pytest.fail(built.stderr)
    return binary


@pytest.fixture
def client(go_peer: Path, tmp_path: Path) -> Iterator[ttrpc.Client]:
    path = str(tmp_path / "s")
    with subprocess.Popen([str(go_peer), "serve", path], stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
            sock = socket.socket(socket.AF_UNIX)
            sock.connect(path)
            with ttrpc.Client(sock) as connected:
                yield connected
            connected.join(SECONDS)
        finally:
            process.kill()


@pytest.fixture
def go_echo(client: ttrpc.Client) -> Any:
    return ttrpc.stub(client, ECHO)


def test_golden_frame_is_what_go_writes(go_peer: Path) -> None:
    captured = subprocess.run([str(go_peer), "capture"], capture_output=True, text=True, timeout=SECONDS, check=True)
    assert bytes.fromhex(captured.stdout) == GOLDEN_FRAME


def test_our_client_calls_the_go_server(client: ttrpc.Client, go_echo: Any) -> None:
    assert go_echo.Say(StringValue(value="hello"), timeout=SECONDS).value == "hello"
    assert go_echo.Say(StringValue(), timeout=None).value == ""
    assert 10_000 < go_echo.Deadline(Empty(), timeout=20).value <= 20_000
    key = StringValue(value="containerd-namespace-ttrpc")
    assert go_echo.Metadata(key, timeout=SECONDS, metadata={key.value: "default"}).value == "default"
    assert len(go_echo.Big(Int32Value(value=(4 << 20) - 64), timeout=SECONDS).value) == (4 << 20) - 64
    failures: list[tuple[Callable[[], Any], int, str]] = [
        (lambda: go_echo.Fail(Int32Value(value=5), timeout=SECONDS), 5, "as asked"),
        (lambda: go_echo.Missing(Empty(), timeout=SECONDS), 12, "method Missing"),
        (lambda: client.call("no.Such", "M", Empty(), Empty, timeout=SECONDS), 12, "service no.Such"),
    ]
    for call, code, text in failures:
        with pytest.raises(ttrpc.TtrpcError) as caught:
            call()
        assert (caught.value.code, caught.value.message) == (code, text)


def test_our_client_makes_many_calls_at_once_to_the_go_server(go_echo: Any) -> None:
    texts = [f"{number}-" * 100 for number in range(200)]
    with ThreadPoolExecutor(16) as pool:
        assert list(pool.map(lambda t: go_echo.Say(StringValue(value=t), timeout=SECONDS).value, texts)) == texts


def test_our_client_streams_with_the_go_server(go_echo: Any) -> None:
    with go_echo.Collect() as stream:
        for part in ["a", "", "b"]:
            stream.send(StringValue(value=part))
        stream.close_send()
        assert stream.recv(SECONDS).value == "ab"
        assert stream.recv(SECONDS) is None
    with go_echo.Count(Int32Value(value=300)) as stream:
        assert [stream.recv(SECONDS).value for _ in range(300)] == [str(number) for number in range(300)]
        assert stream.recv(SECONDS) is None
    with go_echo.Chat() as stream:
        for number in range(100):
            stream.send(StringValue(value=str(number)))
            assert stream.recv(SECONDS).value == str(number)
        stream.close_send()
        assert stream.recv(SECONDS) is None
    with go_echo.Chat() as stream:
        stream.send(StringValue(value="fail"))
        with pytest.raises(ttrpc.TtrpcError, match="as asked") as caught:
            stream.recv(SECONDS)
        assert caught.value.code == 9


def test_go_client_calls_our_server(go_peer: Path, tmp_path: Path) -> None:
    server = ttrpc.Server(accept=ttrpc.same_user)
    server.register(ECHO, Echo())
    path = str(tmp_path / "s")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path)
        listener.listen()
        thread = threading.Thread(target=server.serve, args=(listener,))
        thread.start()
        try:
            called = subprocess.run(
                [str(go_peer), "call", path], capture_output=True, text=True, timeout=60, check=False
            )
        finally:
            server.close()
            thread.join(SECONDS)
    assert called.stderr == ""
    assert called.stdout.splitlines() == [
        "say: hello",
        "fail: 5 as asked",
        "unknown method: 12 method Missing",
        "unknown service: 12 service no.Such",
        "metadata: default",
        "deadline: true",
        f"big: {(4 << 20) - 64}",
        "too big: 8 the answer has 4194314 bytes, more than a frame holds",
        "concurrent: 100",
        "collect: ab",
        "count: 300 EOF",
        "chat : 100 EOF",
        "chat fail: 9 as asked",
        "chat leave: 100 EOF",
    ]
