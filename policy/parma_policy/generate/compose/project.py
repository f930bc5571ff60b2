# SPDX-License-Identifier: Apache-2.0
"""A whole Compose file."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final

from parma_policy.generate import documents
from parma_policy.generate.compose.interpolation import fill_in, read_env_file
from parma_policy.generate.compose.services import ServiceSettings, read_service
from parma_policy.generate.compose.volumes import Project
from parma_policy.generate.nodes import Fields, Node
from parma_policy.generate.problems import Problems
from parma_policy.generate.source import OptionsOf, SourceContainer, Unit
from parma_wire.errors import Malformed

_NAME: Final = re.compile(r"[a-z0-9][a-z0-9_-]*", re.ASCII)


@dataclass(frozen=True, slots=True)
class ComposeSettings:
    """What the command line says."""

    project_name: str = ""
    """In place of the file's, or of its directory's."""
    env_files: Sequence[Path] = ()
    host_paths: frozenset[str] = frozenset()


def read(path: Path, problems: Problems, settings: ComposeSettings, options: OptionsOf) -> list[Unit]:
    """The services of a file, each a unit. Raises Malformed for what is no Compose file at all."""
    text = documents.decoded(documents.read_file(path, "Compose file"), str(path))
    roots = documents.yaml_documents(text, problems)
    if len(roots) != 1:
        raise Malformed(f"{path} is not a Compose file", expected="one YAML document")
    variables: dict[str, str] = {}
    for env_file in settings.env_files:
        variables.update(read_env_file(env_file, variables))
    with _but_services(roots[0], variables).fields() as top:
        top.ignore("version", "networks", *(name for name, _ in top if name.startswith("x-")))
        top.refuse("include", "is not followed: name one file with everything in it")
        top.refuse("models", "not supported")
        project = _project(top, path, settings)
        services = top.members("services")
        if not services:
            top.node.problem("services are missing")
        common = ServiceSettings(project, variables)

    def container(name: str, node: Node) -> list[SourceContainer]:
        return [read_service(name, fill_in(node, variables), common, options(name))]

    return [
        Unit(name=name, title=f"service {name}", read=partial(container, name, node)) for name, node in services.items()
    ]


def _but_services(root: Node, variables: Mapping[str, str]) -> Node:
    """The file with variables put in, but for its services: each is read on its own."""
    members = {
        name: node if name == "services" or name.startswith("x-") else fill_in(node, variables)
        for name, node in root.members().items()
    }
    return Node(members, root.path, root.line, root.problems)


def _project(top: Fields, path: Path, settings: ComposeSettings) -> Project:
    directory = path.parent.resolve()
    name = settings.project_name or top.text("name") or _directory_name(directory)
    top.ignore("name")
    if not _NAME.fullmatch(name):
        top.node.problem(f"{name!r} is not a project's name", hint="give one with --project-name")
    return Project(
        name=name,
        directory=str(directory),
        volumes={key: _volume_name(key, node.fields(), name) for key, node in top.members("volumes").items()},
        configs=_files(top, "configs"),
        secrets=_files(top, "secrets"),
        host_paths=settings.host_paths,
    )


def _directory_name(directory: Path) -> str:
    """As Compose makes a project's name of its directory's."""
    return re.sub(r"[^a-z0-9_-]", "", directory.name.lower()).lstrip("_-")


def _volume_name(key: str, fields: Fields, project: str) -> str:
    with fields:
        fields.ignore("labels", "driver_opts")
        fields.refuse("driver", "data from outside the VM is not supported", harmless=("local",))
        options = fields.node.members().get("driver_opts")
        if options is not None and options.members():
            options.problem("data from outside the VM is not supported")
        external = fields.flag("external")
        return fields.text("name") or (key if external else f"{project}_{key}")


def _files(top: Fields, member: str) -> frozenset[str]:
    """Names of configs or secrets; they are files of the host."""
    names = []
    for name, node in top.members(member).items():
        with node.fields() as fields:
            fields.ignore("name", "labels")
            fields.needed_text("file")
            for other in ("environment", "content", "external"):
                fields.refuse(other, "nerdctl takes them from files only")
        names.append(name)
    return frozenset(names)
