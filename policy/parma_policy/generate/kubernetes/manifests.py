# SPDX-License-Identifier: Apache-2.0
"""Manifest files: each workload in them is a unit with a policy of its own."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import partial
from pathlib import Path

from parma_policy.annotation import VOLUME_LIMITS
from parma_policy.generate import documents
from parma_policy.generate.assemble import Wanted
from parma_policy.generate.kubernetes import workloads
from parma_policy.generate.kubernetes.pod import PodSettings, read_pod
from parma_policy.generate.kubernetes.volumes import limits_annotation
from parma_policy.generate.nodes import Node
from parma_policy.generate.problems import Problems
from parma_policy.generate.source import OptionsOf, SourceContainer, Unit


def read(
    paths: Sequence[Path],
    problems: Problems,
    settings: PodSettings,
    options: OptionsOf,
    *,
    sandbox_image: str = "",
) -> list[Unit]:
    """The workloads of all files, in order; ConfigMaps and Secrets of any file count for all.

    ``sandbox_image`` is that of the container which containerd runs for a pod itself, where it is to be allowed.
    Raises Malformed for what is no YAML.
    """
    roots: list[Node] = []
    for path in paths:
        text = documents.decoded(documents.read_file(path, "manifest"), str(path))
        roots += documents.yaml_documents(text, problems)
    found, objects = workloads.read(list(workloads.with_titles(roots)))

    def containers(workload: workloads.Workload) -> list[SourceContainer]:
        own = [_sandbox(workload.spec, sandbox_image)] if sandbox_image else []
        return own + read_pod(workload, objects, settings, options)

    return [
        Unit(workload_name, workload.title, partial(containers, workload), annotations=partial(_annotations, workload))
        for workload, workload_name in zip(found, _file_names(found), strict=True)
    ]


def _annotations(workload: workloads.Workload) -> dict[str, str]:
    limits = limits_annotation(workload.spec, workload.annotations.get(VOLUME_LIMITS, ""))
    return {VOLUME_LIMITS: limits} if limits else {}


def _file_names(found: Iterable[workloads.Workload]) -> list[str]:
    """``deployment-web``, with the namespace or a number where that is not enough."""
    names: list[str] = []
    for workload in found:
        name = f"{workload.kind.lower()}-{workload.name.rstrip('-')}"
        if name in names and workload.namespace:
            name = f"{workload.namespace}-{name}"
        number = 2
        unique = name
        while unique in names:
            unique = f"{name}-{number}"
            number += 1
        names.append(unique)
    return names


def _sandbox(spec: Node, image: str) -> SourceContainer:
    wanted = Wanted(name="POD", kubelet_user=True)
    return SourceContainer(spec, "", image, "the pod's own container, which keeps its namespaces", wanted)
