# SPDX-License-Identifier: Apache-2.0
"""What was allowed so far: the history that decisions depend on.

A ``State`` never changes; a decision returns the next one. Undoing a decision whose side effect failed is to keep
using the state from before.

::

    overlay mounted           container created              container shut down
    matches[id] = candidates  started[id]                    matches[id] removed
          |                   matches[id] narrowed                 |
          +---- create ------------> +---- exec, signal: narrow    +-- started[id] stays: an id is used once
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import TypeVar

from parma_policy.model import (
    Container,
    ContainerIndex,
    ExternalProcess,
    FragmentRule,
    Pins,
    PlatformRule,
    TrustListRule,
)

_K = TypeVar("_K")
_V = TypeVar("_V")


def with_item(mapping: Mapping[_K, _V], key: _K, value: _V) -> Mapping[_K, _V]:
    """A copy with one more, or one changed, item."""
    return MappingProxyType({**mapping, key: value})


def without(mapping: Mapping[_K, _V], key: _K) -> Mapping[_K, _V]:
    """A copy that lacks ``key``."""
    return MappingProxyType({k: v for k, v in mapping.items() if k != key})


@dataclass(frozen=True, slots=True)
class Overlay:
    """A mounted overlay: for which container, of which device targets (top layer first)."""

    container_id: str
    layer_targets: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Started:
    """A container that was created; it stays listed after its end."""

    privileged: bool
    allow_stdio_access: bool
    shut_down: bool = False


@dataclass(frozen=True, slots=True)
class LoadedFragment:
    """What one loaded fragment contributes, already cut down to what the policy lets it include."""

    issuer: str
    feed: str
    containers: ContainerIndex
    external_processes: tuple[ExternalProcess, ...] = ()
    fragments: tuple[FragmentRule, ...] = ()
    platform_rules: tuple[PlatformRule, ...] = ()
    transparency_trust_lists: tuple[TrustListRule, ...] = ()


@dataclass(frozen=True, slots=True)
class State:
    """The history of one VM. Start with ``State.initial()``."""

    devices: Mapping[str, str]
    """Root hash of each read-only device by its target."""
    rw_devices: frozenset[str]
    """Targets of read-write devices."""
    overlays: Mapping[str, Overlay]
    """By target."""
    matches: Mapping[str, tuple[Container, ...]]
    """By container id: the policy's containers that it can still be. Only ever narrows."""
    started: Mapping[str, Started]
    """By container id."""
    plan9_mounts: Mapping[str, str]
    """Container id by target."""
    scratch_mounts: Mapping[str, bool]
    """Whether encrypted, by target."""
    fragments: tuple[LoadedFragment, ...]
    provided: Mapping[str, Pins]
    """What the host has provided, by the source that mounts have it from."""

    @classmethod
    def initial(cls) -> State:
        """Nothing has been allowed yet."""
        return _INITIAL

    def candidates(self, container_id: str) -> tuple[Container, ...]:
        """The policy's containers that this id can still be; empty for an unknown id."""
        return self.matches.get(container_id, ())


_INITIAL = State(
    devices=MappingProxyType({}),
    rw_devices=frozenset(),
    overlays=MappingProxyType({}),
    matches=MappingProxyType({}),
    started=MappingProxyType({}),
    plan9_mounts=MappingProxyType({}),
    scratch_mounts=MappingProxyType({}),
    fragments=(),
    provided=MappingProxyType({}),
)
