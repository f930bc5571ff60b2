# SPDX-License-Identifier: Apache-2.0
"""The network of a real guest, with the test at the other end of the wire: it sees every frame from power-on."""

from __future__ import annotations

import select
import socket
import struct
from collections.abc import Iterator

import pytest

from parma_wire import guest_pb2 as pb
from parma_wire.errors import FailedPrecondition, Malformed, NotFound
from tests.guest import vm_harness as vm

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.skipif(bool(vm.missing()), reason=vm.missing()),
    pytest.mark.timeout(400),
]

CARD, MINE = bytes.fromhex("020000000042"), bytes.fromhex("020000000001")
GUEST4, MINE4 = socket.inet_aton("10.88.0.2"), socket.inet_aton("10.88.0.1")
GUEST6, MINE6 = (socket.inet_pton(socket.AF_INET6, text) for text in ("fd88::2", "fd88::1"))
EVERYBODY = b"\xff" * 6
ALL_NODES = socket.inet_pton(socket.AF_INET6, "ff02::1")
ROUTER = socket.inet_pton(socket.AF_INET6, "fe80::1")
SERVER = ["/bin/httpd", "-f", "-p", "[::]:80", "-h", "/etc"]
SHOW = ["/bin/sh", "-c", "ip addr; ip route; ip -6 route; ls /sys/class/net"]
CONTAINER, NEIGHBOUR = "a1" * 32, "b2" * 32


class Wire:
    """The other end of the guest's network card: one datagram is one frame."""

    def __init__(self) -> None:
        self._mine, self.theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.seen: list[bytes] = []

    def send(self, frame: bytes) -> None:
        self._mine.send(frame)

    def close(self) -> None:
        self._mine.close()
        self.theirs.close()

    def collect(self, seconds: float) -> list[bytes]:
        """Frames that come within the time."""
        frames = []
        while select.select([self._mine], [], [], seconds)[0]:
            frames.append(self._mine.recv(65536))
            seconds = min(seconds, 0.5)
        self.seen += frames
        return frames

    def answer(self, question: bytes, wanted: bytes, timeout: float = 60) -> bytes:
        """The first frame that contains ``wanted``, after a question that is repeated until then."""
        for _ in range(int(timeout)):
            self.send(question)
            for frame in self.collect(1.0):
                if wanted in frame:
                    return frame
        raise TimeoutError(f"no answer among {len(self.seen)} frames")


def arp_request() -> bytes:
    body = struct.pack("!HHBBH", 1, 0x0800, 6, 4, 1) + MINE + MINE4 + bytes(6) + GUEST4
    return EVERYBODY + MINE + b"\x08\x06" + body.ljust(46, b"\0")


def icmp6(source: bytes, destination: bytes, kind: int, body: bytes) -> bytes:
    payload = struct.pack("!BBH", kind, 0, 0) + body
    pseudo = source + destination + struct.pack("!II", len(payload), 58)
    words = struct.unpack(f"!{(len(pseudo) + len(payload)) // 2}H", pseudo + payload)
    total = sum(words)
    total = (total & 0xFFFF) + (total >> 16)
    total = (total & 0xFFFF) + (total >> 16)
    payload = payload[:2] + struct.pack("!H", ~total & 0xFFFF) + payload[4:]
    header = struct.pack("!IHBB", 0x60000000, len(payload), 58, 255) + source + destination
    return b"\x33\x33" + destination[12:] + MINE + b"\x86\xdd" + header + payload


def neighbour_solicitation() -> bytes:
    group = socket.inet_pton(socket.AF_INET6, "ff02::1:ff00:2")
    return icmp6(MINE6, group, 135, bytes(4) + GUEST6 + b"\1\1" + MINE)


def router_advertisement() -> bytes:
    """Come this way, and make yourself an address in fdbad::/64."""
    prefix = struct.pack("!BBBBIII", 3, 4, 64, 0xC0, 3600, 3600, 0) + socket.inet_pton(socket.AF_INET6, "fdba:d::")
    return icmp6(ROUTER, ALL_NODES, 134, struct.pack("!BBHII", 64, 0, 1800, 0, 0) + b"\1\1" + MINE + prefix)


TEMPTATIONS = (arp_request(), neighbour_solicitation(), router_advertisement())


def configuration(**changes: object) -> pb.ConfigureNetworkRequest:
    interface = pb.NetworkInterface(
        mac=CARD,
        name="eth0",
        mtu=1400,
        addresses=[
            pb.NetworkAddress(address=GUEST4, prefix_length=24),
            pb.NetworkAddress(address=GUEST6, prefix_length=64),
        ],
        routes=[pb.NetworkRoute(destination=bytes(4), gateway=MINE4)],
    )
    interface.MergeFrom(pb.NetworkInterface(**changes))  # type: ignore[arg-type]
    return pb.ConfigureNetworkRequest(interfaces=[interface])


@pytest.fixture(scope="module")
def silence() -> dict[str, list[bytes]]:
    """What the guest sent, by the moment until which it was listened to."""
    return {}


@pytest.fixture(scope="module")
def wire() -> Iterator[Wire]:
    wire = Wire()
    yield wire
    wire.close()


@pytest.fixture(scope="module")
def guest(tmp_path_factory: pytest.TempPathFactory, wire: Wire, silence: dict[str, list[bytes]]) -> Iterator[vm.Guest]:
    directory = tmp_path_factory.mktemp("network")
    layer = vm.write_layer(directory / "base", vm.layer_tar({}, busybox=True))
    execs = [{"command": SHOW, "signals": [9]}]
    policy = vm.policy_text(
        vm.container_object([layer], SERVER, exec_processes=execs),
        vm.container_object([layer], ["/bin/sleep", "1000"], exec_processes=execs),
    )
    fd = wire.theirs.fileno()
    card = [
        *("-netdev", f"dgram,id=net0,local.type=fd,local.str={fd}"),
        *("-device", f"virtio-net-pci,netdev=net0,mac={CARD.hex(':')},romfile=,disable-legacy=on"),
    ]
    with vm.running(tmp_path_factory.mktemp("vm"), [directory / "base"], extra=card, keep=[fd]) as guest:

        def listen(until: str) -> None:
            for frame in TEMPTATIONS:
                wire.send(frame)
            silence[until] = wire.collect(2.0)

        listen("policy")
        guest.set_policy(policy)
        guest.prepare([(0, layer)], CONTAINER)
        with pytest.raises(Malformed):
            guest.call("ConfigureNetwork", configuration(name="../eth0"))
        with pytest.raises(NotFound):
            guest.call("ConfigureNetwork", configuration(mac=MINE))
        listen("configuration")
        guest.call("ConfigureNetwork", configuration())
        guest.create(SERVER, CONTAINER)
        guest.start(CONTAINER)
        yield guest


def shown(guest: vm.Guest, container: str, exec_id: str) -> str:
    request = pb.ExecProcessRequest(container_id=container, exec_id=exec_id, process=vm.process(SHOW))
    guest.call("ExecProcess", request)
    return guest.read_all(container, exec_id=exec_id).decode()


@pytest.mark.parametrize("until", ["policy", "configuration"])
def test_nothing_is_sent_before_it_is_configured_whatever_comes(
    guest: vm.Guest, silence: dict[str, list[bytes]], until: str
) -> None:
    assert guest.qemu.poll() is None
    assert silence[until] == []


def test_afterwards_it_answers_over_ipv4_and_ipv6(guest: vm.Guest, wire: Wire) -> None:
    assert guest.qemu.poll() is None
    assert CARD + GUEST4 in wire.answer(arp_request(), CARD + GUEST4 + MINE + MINE4)
    assert wire.answer(neighbour_solicitation(), GUEST6 + b"\2\1" + CARD).startswith(MINE + CARD)


def test_it_is_configured_by_the_request_and_by_nothing_that_comes_over_the_wire(guest: vm.Guest, wire: Wire) -> None:
    wire.send(router_advertisement())
    wire.collect(2.0)
    text = shown(guest, CONTAINER, "show")
    assert "10.88.0.2/24" in text
    assert "fd88::2/64" in text
    assert "mtu 1400" in text
    assert "default via 10.88.0.1" in text
    assert "fdba:d:" not in text
    assert "fe80::1" not in text
    assert "inet6 fe80:" not in text


def test_containers_of_a_vm_share_the_network(guest: vm.Guest) -> None:
    guest.call("MountScratch", pb.MountScratchRequest(container_id=NEIGHBOUR, memory_bytes=16 << 20))
    overlay = pb.MountOverlayRequest(container_id=NEIGHBOUR, layer_targets=["/run/mounts/scsi/m0"])
    guest.call("MountOverlay", overlay)
    guest.create(["/bin/sleep", "1000"], NEIGHBOUR)
    guest.start(NEIGHBOUR)
    assert "10.88.0.2/24" in shown(guest, NEIGHBOUR, "show")


def test_there_is_no_second_configuration(guest: vm.Guest) -> None:
    with pytest.raises(FailedPrecondition):
        guest.call("ConfigureNetwork", configuration())


def test_it_never_looked_for_a_router_or_duplicates(guest: vm.Guest, wire: Wire) -> None:
    assert guest.qemu.poll() is None
    wire.collect(1.0)
    sent = [frame for frame in wire.seen if frame[12:14] == b"\x86\xdd" and frame[20] == 58]
    assert not [frame for frame in sent if frame[54] == 133]
    assert not [frame for frame in sent if frame[54] == 135 and frame[22:38] == bytes(16)]
