# SPDX-License-Identifier: Apache-2.0
"""A single image and what ``ctr run`` is to do with it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from parma_policy.generate.assemble import Seccomp, Variable, Wanted, assemble
from parma_policy.generate.patterns import Text
from parma_policy.generate.platforms import DEFAULTS, load
from parma_policy.generate.policy import Exec, Mount, Noted
from parma_policy.images import Image
from parma_wire.errors import Malformed


@dataclass(frozen=True, slots=True)
class Wish:
    """What shall be possible with an image beyond what the image says. None: as the image says."""

    command: tuple[str, ...] | None = None
    """The whole command line, as ``ctr run IMAGE NAME COMMAND...`` takes it."""
    arguments: tuple[str, ...] | None = None
    """Behind the image's entrypoint."""
    env: tuple[str, ...] = ()
    """``NAME=value``; replaces the image's variable of that name."""
    any_value: tuple[str, ...] = ()
    """Names of variables that may have any value."""
    execs: tuple[tuple[str, ...], ...] = ()
    signals: tuple[int, ...] = ()
    mounts: tuple[Mount, ...] = ()
    user: str | None = None
    working_dir: str | None = None
    add: tuple[str, ...] = ()
    drop: tuple[str, ...] = ()
    privileged: bool = False
    new_privileges: bool = False
    seccomp: Seccomp | None = None
    stdio: bool = True
    attestation: tuple[str, ...] = ()
    """Names of ``parma_policy.attestation``: what of attestation the container may reach."""

    def wanted(self, image: Image, origin: tuple[str, ...] = ()) -> Wanted:
        """The container that this makes. Raises Malformed for a variable without a value."""
        return Wanted(
            origin=origin,
            name=image.name,
            entrypoint=self.command,
            arguments=self.arguments,
            env=tuple(map(variable, self.env)),
            any_value=self.any_value,
            user=self.user,
            add=self.add,
            drop=self.drop,
            privileged=self.privileged,
            no_new_privileges=False if self.new_privileges else None,
            seccomp=self.seccomp,
            working_dir=self.working_dir,
            mounts=self.mounts,
            execs=tuple(map(Exec, self.execs)),
            signals=self.signals,
            stdio=self.stdio,
            attestation=self.attestation,
        )


def variable(text: str) -> Variable:
    """``NAME=value`` from a command line. Raises Malformed."""
    name, separator, value = text.partition("=")
    if not name or not separator:
        raise Malformed(f"environment variable {name[:80]!r} has no value", expected="NAME=value")
    return Variable(name, Text.of(value), "asked for on the command line")


def container_for(image: Image, wish: Wish) -> dict[str, Any]:
    """The policy's container object for ``ctr run`` of this image. Raises Malformed or NotFound as ``assemble``."""
    made = assemble(wish.wanted(image), image, load(DEFAULTS["image"]))
    return {name: _plain(value) for name, value in made.as_object().items()}


def _plain(value: object) -> object:
    """Without notes."""
    if isinstance(value, Noted):
        return _plain(value.value)
    if isinstance(value, list):
        return [_plain(item) for item in value]
    if isinstance(value, Mapping):
        return {name: _plain(item) for name, item in value.items()}
    return value
