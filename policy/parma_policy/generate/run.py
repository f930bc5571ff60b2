# SPDX-License-Identifier: Apache-2.0
"""From settings to policies: reads the source, finds its images, and makes the texts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final

from parma_policy.generate import confcom, platforms
from parma_policy.generate.assemble import assemble
from parma_policy.generate.compose import project
from parma_policy.generate.compose.project import ComposeSettings
from parma_policy.generate.kubernetes import manifests
from parma_policy.generate.kubernetes.pod import PodSettings
from parma_policy.generate.library import Library
from parma_policy.generate.platforms import Platform
from parma_policy.generate.policy import Container, Fragment, Switches
from parma_policy.generate.problems import Problems
from parma_policy.generate.provided import ProvidedFiles
from parma_policy.generate.render import policy_text
from parma_policy.generate.source import ContainerOptions, SourceContainer, Unit, build, check_names
from parma_policy.generate.wish import Wish
from parma_wire.errors import Malformed, NotFound

EVERY_CONTAINER: Final = ""
"""Key of the options that count for all containers."""


@dataclass(frozen=True, slots=True)
class Settings:
    """Everything that the command line says. ``image``, ``compose``, ``kubernetes`` or ``confcom`` is the source."""

    image: str | None = None
    """A name, or empty for the only image of the archive."""
    compose: Path | None = None
    kubernetes: Sequence[Path] = ()
    confcom: Path | None = None
    platform: str = ""
    seccomp_default: str = ""
    wish: Wish = field(default_factory=Wish)
    """For an image."""
    options: Mapping[str, ContainerOptions] = field(default_factory=dict)
    """For single containers of the other sources, by name."""
    only: Sequence[str] = ()
    """Services or workloads (``web``, ``Deployment/web``) to which the others do not count."""
    together: bool = False
    ignored: Sequence[str] = ()
    host_paths: frozenset[str] = frozenset()
    provided: ProvidedFiles = field(default_factory=ProvidedFiles)
    seccomp_root: Path | None = None
    compose_env: Sequence[Path] = ()
    project_name: str = ""
    sandbox_image: str = ""
    fragments: tuple[Fragment, ...] = ()
    switches: Switches = field(default_factory=Switches)


@dataclass(frozen=True, slots=True)
class Made:
    """A policy and what it is for."""

    name: str
    title: str
    text: str
    annotations: Mapping[str, str] = field(default_factory=dict)
    """What its pods need besides the policy's own."""


def run(settings: Settings, library: Library) -> list[Made]:
    """The policies of the source.

    Raises SourceError with everything that cannot be taken, NotFound for what is missing, Malformed for settings that
    make no sense.
    """
    if settings.image is not None:
        return [_image(settings, library)]
    if settings.compose is not None:
        kind, source = "compose", str(settings.compose)
    elif settings.kubernetes:
        kind, source = "kubernetes", ", ".join(map(str, settings.kubernetes))
    elif settings.confcom is not None:
        kind, source = "confcom", str(settings.confcom)
    else:
        raise Malformed("no source is given", expected="an image, --compose, --kubernetes or --confcom")
    platform = platforms.load(settings.platform or platforms.DEFAULTS[kind])
    problems = Problems(source, settings.ignored)
    units = _selected(_units(kind, settings, problems), settings.only)
    read = [(unit, unit.read()) for unit in units]
    check_names(settings.options, (container.name for _, containers in read for container in containers))
    built = [(unit, _containers(containers, library, platform, settings)) for unit, containers in read]
    problems.check()
    library.check_all_used()
    everything = iter(settings.provided.applied([container for _, containers in built for container in containers]))
    built = [(unit, [next(everything) for _ in containers]) for unit, containers in built]
    if settings.together:
        built = [(_joined(units), [container for _, containers in built for container in containers])]
    return [_made(unit, containers, settings, problems) for unit, containers in built]


def _image(settings: Settings, library: Library) -> Made:
    name = settings.image or ""
    image = library.archived(name) if library.has_archives else library.image(name)
    platform = platforms.load(settings.platform or platforms.DEFAULTS["image"])
    origin = (f"image {name}" if name else "an image archive", f"platform {platform.name}: {platform.about}")
    container = assemble(settings.wish.wanted(image, origin), image, platform, seccomp_default=settings.seccomp_default)
    text = policy_text(settings.provided.applied([container]), settings.switches, fragments=settings.fragments)
    return Made("policy", name, text)


def _units(kind: str, settings: Settings, problems: Problems) -> list[Unit]:
    common = settings.options.get(EVERY_CONTAINER, ContainerOptions())

    def options(name: str) -> ContainerOptions:
        own = settings.options.get(name) if name else None
        return common if own is None else common.and_also(own)

    match kind:
        case "compose":
            compose = ComposeSettings(settings.project_name, settings.compose_env, settings.host_paths)
            return project.read(_path(settings.compose), problems, compose, options)
        case "kubernetes":
            pods = PodSettings(settings.host_paths, settings.seccomp_root)
            return manifests.read(settings.kubernetes, problems, pods, options, sandbox_image=settings.sandbox_image)
        case _:
            return confcom.read(_path(settings.confcom), problems, options)


def _path(path: Path | None) -> Path:
    assert path is not None  # noqa: S101 - the kind of the source says so
    return path


def _selected(units: list[Unit], only: Sequence[str]) -> list[Unit]:
    for name in only:
        if not any(_is_called(unit, name) for unit in units):
            known = ", ".join(unit.title for unit in units)
            raise NotFound(f"the source has no {name!r}", hint=f"there are {known}")
    return [unit for unit in units if not only or any(_is_called(unit, name) for name in only)]


def _is_called(unit: Unit, name: str) -> bool:
    return name in (unit.name, unit.title, unit.title.partition("/")[2])


def _containers(
    containers: Sequence[SourceContainer], library: Library, platform: Platform, settings: Settings
) -> list[Container]:
    built = (build(item, library.image, platform, settings.seccomp_default) for item in containers)
    return [container for container in built if container is not None]


def _joined(units: Sequence[Unit]) -> Unit:
    fragments = dict.fromkeys(fragment for unit in units for fragment in unit.fragments)
    return Unit("policy", " and ".join(unit.title for unit in units), list, tuple(fragments))


def _made(unit: Unit, containers: Sequence[Container], settings: Settings, problems: Problems) -> Made:
    notes = (unit.title, *(f"Set aside on request: {path}" for path in problems.set_aside))
    fragments = (*unit.fragments, *settings.fragments)
    text = policy_text(_distinct(containers), settings.switches, fragments=fragments, notes=notes)
    return Made(unit.name, unit.title, text, unit.annotations())


def _distinct(containers: Sequence[Container]) -> list[Container]:
    """Without those that allow the same as one before."""
    seen: set[Container] = set()
    found = []
    for container in containers:
        plain = replace(container, name="", origin=(), seccomp_note="")
        if plain not in seen:
            found.append(container)
        seen.add(plain)
    return found
