# SPDX-License-Identifier: Apache-2.0
"""Which documents of a manifest make pods, and what the pods will be called."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from parma_policy.generate.documents import member_path
from parma_policy.generate.kubernetes import objects
from parma_policy.generate.kubernetes.objects import Objects
from parma_policy.generate.nodes import Fields, Node
from parma_policy.generate.patterns import quoted

LETTER: Final = "[b-df-hj-np-tv-xz2-9]"
"""Kubernetes makes no other characters up for names (no vowels, nothing that looks like another)."""
SUFFIX: Final = f"{LETTER}{{5}}"
HASH: Final = f"{LETTER}{{1,10}}"

_MAX_GENERATED: Final = 58
_MAX_HOSTNAME: Final = 63

_WITHOUT_PODS: Final = frozenset(
    (
        *("APIService", "ClusterRole", "ClusterRoleBinding", "CustomResourceDefinition", "EndpointSlice", "Endpoints"),
        *("HorizontalPodAutoscaler", "Ingress", "IngressClass", "Lease", "LimitRange", "Namespace", "NetworkPolicy"),
        *("PersistentVolume", "PersistentVolumeClaim", "PodDisruptionBudget", "PriorityClass", "ResourceQuota", "Role"),
        *("RoleBinding", "RuntimeClass", "Service", "StorageClass", "ValidatingAdmissionPolicy"),
        *("ValidatingAdmissionPolicyBinding", "ValidatingWebhookConfiguration"),
    )
)
"""Kinds that neither make pods nor change them."""

_IGNORED_METADATA: Final = (
    *(
        "annotations",
        "creationTimestamp",
        "deletionGracePeriodSeconds",
        "deletionTimestamp",
        "finalizers",
        "generation",
    ),
    *("labels", "managedFields", "ownerReferences", "resourceVersion", "selfLink", "uid"),
)


@dataclass(frozen=True, slots=True)
class PodName:
    """What a pod will be called, as an expression, and its host name if that is another."""

    expression: str
    hostname: str = ""
    literal: str = ""
    """The name itself, where it is known."""


@dataclass(frozen=True, slots=True)
class Workload:
    """Something that makes pods, all alike."""

    kind: str
    name: str
    namespace: str
    pod_name: PodName
    labels: dict[str, str]
    annotations: dict[str, str]
    spec: Node
    """The pod's."""
    document: Node
    indexed: bool = False
    """An indexed job: its pods have a number."""
    claims: tuple[str, ...] = ()
    """Volumes that a StatefulSet makes for each pod."""

    @property
    def title(self) -> str:
        """``Deployment/web``."""
        return f"{self.kind}/{self.name}"


_ROLLOUT: Final = ("minReadySeconds", "replicas", "revisionHistoryLimit", "selector")
_JOB: Final = (
    *("activeDeadlineSeconds", "backoffLimit", "backoffLimitPerIndex", "completions", "managedBy", "manualSelector"),
    *("maxFailedIndexes", "parallelism", "podFailurePolicy", "podReplacementPolicy", "selector", "successPolicy"),
    *("suspend", "ttlSecondsAfterFinished"),
)
_CRON_JOB: Final = (
    *("concurrencyPolicy", "failedJobsHistoryLimit", "schedule", "startingDeadlineSeconds"),
    *("successfulJobsHistoryLimit", "suspend", "timeZone"),
)
_STATEFUL_SET: Final = (
    *(*_ROLLOUT, "ordinals", "persistentVolumeClaimRetentionPolicy", "podManagementPolicy", "serviceName"),
    "updateStrategy",
)
_KINDS: Final[Mapping[str, tuple[str, tuple[str, ...]]]] = {
    "Pod": ("v1", ()),
    "Deployment": ("apps/v1", (*_ROLLOUT, "paused", "progressDeadlineSeconds", "strategy")),
    "ReplicaSet": ("apps/v1", _ROLLOUT),
    "ReplicationController": ("v1", _ROLLOUT),
    "DaemonSet": ("apps/v1", (*_ROLLOUT, "updateStrategy")),
    "StatefulSet": ("apps/v1", _STATEFUL_SET),
    "Job": ("batch/v1", _JOB),
    "CronJob": ("batch/v1", _JOB),
}
"""Kinds that make pods: their version, and the members of the ``spec`` around the template that say nothing of pods."""


def read(documents: Sequence[Node]) -> tuple[list[Workload], Objects]:
    """The workloads of all documents, lists opened, and the objects that they may refer to."""
    workloads: list[Workload] = []
    found = Objects()
    for document in documents:
        _read_one(document, workloads, found)
    return workloads, found


def title_of(document: Node) -> str:
    """``Kind/name`` of a document, for the paths of its problems; empty where it has none."""
    members = document.value if isinstance(document.value, dict) else {}
    kind, metadata = members.get("kind"), members.get("metadata")
    inner = metadata.value if metadata is not None and isinstance(metadata.value, dict) else {}
    name = inner.get("name") or inner.get("generateName")
    words = [getattr(node.value, "text", "") for node in (kind, name) if node is not None]
    return "/".join(words)


def with_titles(documents: Sequence[Node]) -> Iterator[Node]:
    """The documents, members of lists taken out, with their titles in front of all paths."""
    for document in documents:
        kind = document.members().get("kind")
        if kind is not None and getattr(kind.value, "text", "").endswith("List"):
            items = document.members().get("items")
            yield from with_titles(items.items() if items is not None else [])
        else:
            yield _moved(document, f"{title_of(document)}:")


def _moved(node: Node, path: str) -> Node:
    """The same values under another path."""
    value = node.value
    if isinstance(value, dict):
        value = {name: _moved(item, member_path(path, name)) for name, item in value.items()}
    elif isinstance(value, list):
        value = [_moved(item, f"{path}[{number}]") for number, item in enumerate(value)]
    return Node(value, path, node.line, node.problems)


def _read_one(document: Node, workloads: list[Workload], found: Objects) -> None:
    fields = document.fields()
    kind, version = fields.needed_text("kind"), fields.needed_text("apiVersion")
    metadata = fields.child("metadata")
    namespace, name = _names(metadata)
    match kind:
        case "ConfigMap" | "Secret":
            read_data, known = (
                (objects.read_config_map, found.config_maps)
                if kind == "ConfigMap"
                else (objects.read_secret, found.secrets)
            )
            if (namespace, name) in known:
                document.problem(f"{kind} {name} is given twice")
            known[namespace, name] = read_data(fields)
        case "ServiceAccount":
            if not objects.mounts_token(fields):
                found.without_token.add((namespace, name))
        case _ if kind in _KINDS:
            expected = _KINDS[kind][0]
            if version != expected:
                document.problem(f"{kind} of {version or 'no apiVersion'} is not supported", hint=f"use {expected}")
            workload = _workload(kind, namespace, name, fields)
            if workload is not None:
                workloads.append(workload)
        case _ if kind and kind not in _WITHOUT_PODS:
            hint = "leave it out of the input, or set it aside"
            document.problem(f"kind {kind} is not known: it may make or change pods", hint=hint)


def _names(metadata: Fields | None) -> tuple[str, str]:
    if metadata is None:
        return "", ""
    with metadata:
        metadata.ignore(*_IGNORED_METADATA, "generateName")
        return metadata.text("namespace"), metadata.text("name")


@dataclass(frozen=True, slots=True)
class _Template:
    """A pod, or the template of one, and what the workload around it says about the pods."""

    node: Node
    indexed: bool = False
    claims: tuple[str, ...] = ()


def _workload(kind: str, namespace: str, name: str, fields: Fields) -> Workload | None:
    found = _template(kind, fields)
    if found is None:
        return None
    with found.node.fields() as pod:
        if kind == "Pod":
            pod.ignore("kind", "apiVersion", "status")
        metadata, spec = pod.get("metadata"), pod.get("spec")
    own = fields.get("metadata")
    base = "" if name or own is None else _text_member(own, "generateName")
    if not name and not base:
        fields.node.problem("metadata.name is missing")
    if spec is None:
        found.node.problem("'spec' is missing")
        return None
    if metadata is not None and kind != "Pod":
        _names(metadata.fields())
    return Workload(
        kind=kind,
        name=name or base,
        namespace=namespace,
        pod_name=_POD_NAMES[kind](name, base, found.indexed),
        labels=_strings(metadata, "labels"),
        annotations=_strings(metadata, "annotations"),
        spec=spec,
        document=fields.node,
        indexed=found.indexed,
        claims=found.claims,
    )


def _template(kind: str, fields: Fields) -> _Template | None:
    """The pod template of a workload, all around it read."""
    if kind == "Pod":
        return _Template(fields.node)
    with fields:
        fields.ignore("kind", "apiVersion", "status", "metadata")
        spec = fields.get("spec")
    if kind == "CronJob" and spec is not None:
        with spec.fields() as cron:
            cron.ignore(*_CRON_JOB)
            job = cron.get("jobTemplate")
        if job is not None:
            with job.fields() as inner:
                inner.ignore("metadata")
                spec = inner.get("spec")
    if spec is None:
        fields.node.problem("'spec' is missing")
        return None
    with spec.fields() as inner:
        inner.ignore(*_KINDS[kind][1])
        indexed = kind in ("Job", "CronJob") and inner.text("completionMode") == "Indexed"
        claims = _claims(inner) if kind == "StatefulSet" else ()
        node = inner.get("template")
    if node is None:
        spec.problem("'template' is missing")
        return None
    return _Template(node, indexed, claims)


def _claims(spec: Fields) -> tuple[str, ...]:
    found = []
    for node in spec.items("volumeClaimTemplates"):
        metadata = node.members().get("metadata")
        found.append(_text_member(metadata, "name") if metadata is not None else "")
    return tuple(found)


def _text_member(node: Node, name: str) -> str:
    member = node.members().get(name)
    return "" if member is None or member.is_null else member.text()


def _strings(metadata: Node | None, name: str) -> dict[str, str]:
    found = metadata.members().get(name) if metadata is not None else None
    return {} if found is None else {key: node.text() for key, node in found.members().items()}


# -- names -------------------------------------------------------------------------------------------------------


def generated(base: str, middle: str = "", middle_length: int = 0) -> str:
    """An expression for the names that Kubernetes generates from ``base``, ``middle`` (an expression) and a suffix."""
    if len(base) + middle_length + 1 <= _MAX_GENERATED:
        return f"{quoted(base)}{middle}-{SUFFIX}" if middle else f"{quoted(base)}{SUFFIX}"
    # Cut off somewhere, perhaps within the middle.
    rest = f"[-0-9b-z]{{0,{middle_length + 1}}}"
    return f"{quoted(base[:_MAX_GENERATED])}{rest}{SUFFIX}"


def _pod(name: str, base: str, _indexed: bool) -> PodName:
    if name:
        return PodName(quoted(name), quoted(name[:_MAX_HOSTNAME].rstrip("-.")), name)
    return PodName(generated(base))


def _deployment(name: str, base: str, _indexed: bool) -> PodName:
    return PodName(generated(f"{name or base}-", HASH, 10))


def _numbered(name: str, base: str, _indexed: bool) -> PodName:
    return PodName(f"{quoted(name or base)}-[0-9]+")


def _replicated(name: str, base: str, _indexed: bool) -> PodName:
    return PodName(generated(f"{name}-") if name else generated(base, SUFFIX, 5))


def _job(name: str, base: str, indexed: bool) -> PodName:
    if not indexed:
        return _replicated(name, base, indexed)
    job = quoted(name) if name else generated(base)
    return PodName(f"{job}-[0-9]+-{SUFFIX}", f"{job}-[0-9]+")


def _cron_job(name: str, base: str, indexed: bool) -> PodName:
    job = f"{quoted(name or base)}-[0-9]+"
    if indexed:
        return PodName(f"{job}-[0-9]+-{SUFFIX}", f"{job}-[0-9]+")
    return PodName(generated(f"{name or base}-", "[0-9]+", 10))


_POD_NAMES: Final[dict[str, Callable[[str, str, bool], PodName]]] = {
    "Pod": _pod,
    "Deployment": _deployment,
    "ReplicaSet": _replicated,
    "ReplicationController": _replicated,
    "DaemonSet": _replicated,
    "StatefulSet": _numbered,
    "Job": _job,
    "CronJob": _cron_job,
}
