# SPDX-License-Identifier: Apache-2.0
"""What every source with several containers comes down to, and what the command line adds to single containers."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from parma_policy.generate.assemble import Variable, Wanted, assemble
from parma_policy.generate.nodes import Node
from parma_policy.generate.platforms import Platform
from parma_policy.generate.policy import Container, Exec, Fragment, Mount
from parma_policy.images import Image
from parma_wire.errors import NotFound, ParmaError


@dataclass(frozen=True, slots=True)
class ContainerOptions:
    """What the command line says about a container. ``env`` replaces the source's variables."""

    env: tuple[Variable, ...] = ()
    any_value: tuple[str, ...] = ()
    execs: tuple[tuple[str, ...], ...] = ()
    signals: tuple[int, ...] = ()
    mounts: tuple[Mount, ...] = ()
    stdio: bool | None = None
    attestation: tuple[str, ...] = ()

    def and_also(self, other: ContainerOptions) -> ContainerOptions:
        """Both; ``other`` counts more."""
        return ContainerOptions(
            env=self.env + other.env,
            any_value=self.any_value + other.any_value,
            execs=self.execs + other.execs,
            signals=self.signals + other.signals,
            mounts=self.mounts + other.mounts,
            stdio=self.stdio if other.stdio is None else other.stdio,
            attestation=self.attestation + other.attestation,
        )


@dataclass(frozen=True, slots=True)
class SourceContainer:
    """A container as its source wants it, before its image is known."""

    node: Node
    """Where it stands, for problems with its image."""
    name: str
    image: str
    where: str
    """For the comment above it."""
    wanted: Wanted
    options: ContainerOptions = ContainerOptions()


@dataclass(frozen=True, slots=True)
class Unit:
    """Containers that share one VM, and so one policy."""

    name: str
    """For file names: ``deployment-web``, ``web``."""
    title: str
    read: Callable[[], Sequence[SourceContainer]]
    """Understands it: only what is asked for has to be in order."""
    fragments: tuple[Fragment, ...] = ()
    annotations: Callable[[], Mapping[str, str]] = dict
    """What its pods need besides the policy's own."""


FindImage = Callable[[str], Image]
OptionsOf = Callable[[str], ContainerOptions]
"""What the command line says about the container of a name."""


def build(container: SourceContainer, find: FindImage, platform: Platform, seccomp_default: str) -> Container | None:
    """The policy's container. Errors of its image become problems of the source; None then."""
    if not container.image:
        return None
    try:
        image = find(container.image)
        wanted = with_options(container.wanted, container.options)
        origin = (container.where, f"image {container.image}", f"platform {platform.name}: {platform.about}")
        return assemble(replace(wanted, origin=origin), image, platform, seccomp_default=seccomp_default)
    except ParmaError as error:
        hint = error.hint
        text = error.message + (f"; expected {error.expected}" if error.expected else "")
        container.node.problem(text, hint=hint)
        return None


def with_options(wanted: Wanted, options: ContainerOptions) -> Wanted:
    """What the source wants and what the command line adds."""
    given = {variable.name for variable in options.env}
    return replace(
        wanted,
        env=(*(variable for variable in wanted.env if variable.name not in given), *options.env),
        any_value=wanted.any_value + options.any_value,
        execs=wanted.execs + tuple(Exec(command, "asked for on the command line") for command in options.execs),
        signals=wanted.signals + options.signals,
        mounts=wanted.mounts + options.mounts,
        stdio=wanted.stdio if options.stdio is None else options.stdio,
        attestation=options.attestation,
    )


def check_names(options: Iterable[str], names: Iterable[str]) -> None:
    """Raises NotFound for options about a container that no source has."""
    known = set(names)
    for name in options:
        if name and name not in known:
            raise NotFound(f"no container is called {name!r}", hint=f"there are {', '.join(sorted(known))}")
