# SPDX-License-Identifier: Apache-2.0
"""A VM's connection to a network namespace of the host, made by the helper ``network``.

::

    helper: joins the namespace, makes a tap beside each interface ----> QEMU is started with them
    helper: reads the configuration, redirects packets             ----> the guest is told

The two arrows are `Connection.cards` and `Connection.request`. What is left on the host after QEMU's end is removed by
``netns.remove_redirection``, from the record that is written before there is anything.
"""

from __future__ import annotations

import json
import os
import re
import select
import socket
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

from parma_shim.helpers.call import Document, Helper
from parma_shim.vm import netns
from parma_shim.vm.command import Card
from parma_wire import guest_pb2 as pb
from parma_wire.errors import DeadlineExceeded, Malformed, ParmaError, Unavailable

MAX_CARDS: Final = 8
_MAX_HEAD: Final = 4096
_READY: Final = b"\1"
_MAC: Final = re.compile(r"[0-9a-f]{2}(:[0-9a-f]{2}){5}", re.ASCII)


class Ports(NamedTuple):
    """Descriptors of `parma_shim.helpers.port_catcher`."""

    listener: int
    """Accepts whatever connects to a port; the accepted socket's own address says which."""
    link: int
    """As long as it is open."""


class Connection:
    """See the module. Raises ParmaError wherever the helper does. ``close`` releases everything but what QEMU has."""

    def __init__(self, python: Path, namespace: str, *, deadline: float, catch_ports: bool = False) -> None:
        """``catch_ports``: `take_ports` will have something to give."""
        self._request: Final = {"namespace": namespace, "catch_ports": catch_ports}
        self._namespace: Final = namespace
        self._deadline: Final = deadline
        self._answer: Document = {}
        self._error: ParmaError | None = None
        self._taps: list[int] = []
        self._channel, theirs = socket.socketpair()
        try:
            arguments = ["--descriptors", str(theirs.fileno())]
            self._helper: Final = Helper(python, "network", arguments, keep=(theirs.fileno(),))
        except BaseException:
            self._channel.close()
            raise
        finally:
            theirs.close()
        self._thread: Final = threading.Thread(target=self._exchange, name="network", daemon=True)
        self._thread.start()
        try:
            self.cards, self.record = self._receive()
        except BaseException:
            self.close()
            raise

    def launched(self) -> None:
        """QEMU has the taps, and the record is written: go on."""
        self._close_taps()
        if self.cards:
            try:
                self._channel.send(_READY)
            except OSError as error:
                self._thread.join(max(0.0, self._deadline - time.monotonic()))
                raise self._error or Unavailable("the helper process network ended") from error

    def request(self) -> pb.ConfigureNetworkRequest:
        """What the guest is to be told, once all is connected."""
        self._finish()
        return configuration(self._answer)

    def take_ports(self) -> Ports:
        """What catches connections to ports of the namespace's loopback, once all is connected; the caller closes it.

        Raises Unavailable where the host has no means for it.
        """
        self._finish()
        flags = socket.MSG_DONTWAIT | socket.MSG_CMSG_CLOEXEC
        _, descriptors, _, _ = socket.recv_fds(self._channel, 1, len(Ports._fields), flags)
        if len(descriptors) != len(Ports._fields):
            for descriptor in descriptors:
                os.close(descriptor)
            raise Unavailable(str(self._answer.get("no_ports") or "the helper process network caught no ports"))
        return Ports(*descriptors)

    def close(self) -> None:
        """Idempotent."""
        self._helper.abort()
        self._thread.join()
        self._channel.close()
        self._close_taps()

    def _finish(self) -> None:
        self._thread.join(max(0.0, self._deadline - time.monotonic()))
        if self._thread.is_alive():
            raise DeadlineExceeded("the network was not connected in time")
        if self._error is not None:
            raise self._error

    def _exchange(self) -> None:
        try:
            self._answer = self._helper.exchange(self._request, deadline=self._deadline)
        except ParmaError as error:
            self._error = error
        except Exception as error:  # noqa: BLE001  # a thread has nobody above it: this is where it is told
            self._error = Unavailable(f"the network could not be connected: {type(error).__name__}: {error}")

    def _receive(self) -> tuple[tuple[Card, ...], str]:
        """The taps, and the text of the record."""
        poll = select.poll()
        poll.register(self._channel, select.POLLIN)
        if not poll.poll(max(0, int((self._deadline - time.monotonic()) * 1000))):
            raise DeadlineExceeded("the network was not ready in time")
        head, self._taps, _, _ = socket.recv_fds(self._channel, _MAX_HEAD, MAX_CARDS)
        if not head.endswith(b"\n"):
            self._thread.join(max(0.0, self._deadline - time.monotonic()))
            raise self._error or Unavailable("the helper process network said nothing")
        document = json.loads(head)
        links = document["links"]
        if len(links) != len(self._taps) or not all(_MAC.fullmatch(link["mac"]) for link in links):
            raise Malformed("the helper process network wrote nonsense")
        cards = tuple(Card(link["mac"], tap) for link, tap in zip(links, self._taps, strict=True))
        return cards, netns.record(self._namespace, document["identity"], [int(link["index"]) for link in links])

    def _close_taps(self) -> None:
        while self._taps:
            os.close(self._taps.pop())


class Prepared(NamedTuple):
    """Cards of a VM whose network hooks will make, and the namespace that both will be in. ``close`` it."""

    cards: tuple[Card, ...]
    namespace: int

    def close(self) -> None:
        """QEMU has its own by now."""
        for descriptor in (*(card.tap for card in self.cards), self.namespace):
            os.close(descriptor)


def prepare(python: Path, count: int, *, deadline: float) -> Prepared:
    """A namespace with taps. Raises ParmaError."""
    macs = [b"\2" + os.urandom(5) for _ in range(count)]
    channel, theirs = socket.socketpair()
    with channel, theirs:
        helper = Helper(python, "network", ["--descriptors", str(theirs.fileno())], keep=(theirs.fileno(),))
        helper.exchange({"cards": [mac.hex(":") for mac in macs]}, deadline=deadline)
        _, descriptors, _, _ = socket.recv_fds(channel, _MAX_HEAD, MAX_CARDS + 1)
    if len(descriptors) != count + 1:
        for descriptor in descriptors:
            os.close(descriptor)
        raise Unavailable("the helper process network made no namespace")
    cards = tuple(Card(mac.hex(":"), tap) for mac, tap in zip(macs, descriptors[:-1], strict=True))
    return Prepared(cards, descriptors[-1])


def connect_cards(python: Path, namespace: str, macs: Sequence[str], *, deadline: float) -> pb.ConfigureNetworkRequest:
    """What hooks made there, connected to the cards. Raises ParmaError."""
    mine, theirs = socket.socketpair()
    with mine, theirs:
        helper = Helper(python, "network", ["--descriptors", str(theirs.fileno())], keep=(theirs.fileno(),))
        return configuration(helper.exchange({"namespace": namespace, "cards": list(macs)}, deadline=deadline))


def configuration(answer: Mapping[str, Any]) -> pb.ConfigureNetworkRequest:
    """The helper's answer as the guest's request. Raises Malformed."""
    try:
        return pb.ConfigureNetworkRequest(interfaces=[_interface(item) for item in answer["interfaces"]])
    except (KeyError, TypeError, ValueError, OSError) as error:
        raise Malformed(f"the network's configuration makes no sense: {error}") from error


def _interface(item: Mapping[str, Any]) -> pb.NetworkInterface:
    card = item.get("card")
    return pb.NetworkInterface(
        mac=_mac(card or item["mac"]),
        new_mac=_mac(item["mac"]) if card else b"",
        name=item["name"],
        mtu=item["mtu"],
        addresses=[
            pb.NetworkAddress(
                address=_packed(one["address"]),
                prefix_length=one["prefix"],
                broadcast=_packed(one["broadcast"]),
                no_prefix_route=one["no_prefix_route"],
            )
            for one in item["addresses"]
        ],
        routes=[_route(one) for one in item["routes"]],
        neighbours=[
            pb.NetworkNeighbour(address=_packed(one["address"]), mac=_mac(one["mac"])) for one in item["neighbours"]
        ],
    )


def _route(item: Mapping[str, Any]) -> pb.NetworkRoute:
    return pb.NetworkRoute(
        destination=_packed(item["destination"]),
        prefix_length=item["prefix"],
        gateway=_packed(item["gateway"]),
        source=_packed(item["source"]),
        metric=item["metric"],
        on_link=item["on_link"],
    )


def _packed(text: str) -> bytes:
    if not text:
        return b""
    return socket.inet_pton(socket.AF_INET6 if ":" in text else socket.AF_INET, text)


def _mac(text: str) -> bytes:
    return bytes.fromhex(text.replace(":", ""))
