# SPDX-License-Identifier: Apache-2.0
"""The variables of a container: ``env``, ``envFrom``, ``valueFrom`` and ``$(NAME)``, resolved as kubelet does.

What is known only when the pod starts (its address, its node) becomes an expression.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Final

from parma_policy.generate.assemble import Variable
from parma_policy.generate.kubernetes import quantities
from parma_policy.generate.kubernetes.expansion import expand
from parma_policy.generate.kubernetes.objects import Data, Objects
from parma_policy.generate.kubernetes.workloads import HASH, Workload
from parma_policy.generate.nodes import Fields, Node
from parma_policy.generate.patterns import ADDRESS, ADDRESSES, DNS_NAME, NUMBER, UUID, Text

_API_SERVER: Final = {
    "KUBERNETES_SERVICE_HOST": ADDRESS,
    "KUBERNETES_SERVICE_PORT": NUMBER,
    "KUBERNETES_SERVICE_PORT_HTTPS": NUMBER,
}
_SERVICE: Final = re.compile(
    r"[A-Z_][A-Z0-9_]*_(?:SERVICE_HOST|SERVICE_PORT(?:_[A-Z0-9_]+)?|PORT(?:_[0-9]+_(?:TCP|UDP|SCTP)(?:_[A-Z]+)?)?)"
)
_MEMBER: Final = re.compile(r"metadata\.(labels|annotations)\['([^']{1,320})'\]")
_GENERATED_LABELS: Final = {
    "pod-template-hash": HASH,
    "controller-revision-hash": "[a-z0-9-]{1,64}",
    "pod-template-generation": NUMBER,
    "controller-uid": UUID,
    "batch.kubernetes.io/controller-uid": UUID,
    "job-name": DNS_NAME,
    "batch.kubernetes.io/job-name": DNS_NAME,
    "batch.kubernetes.io/job-completion-index": NUMBER,
    "apps.kubernetes.io/pod-index": NUMBER,
    "statefulset.kubernetes.io/pod-name": DNS_NAME,
    "topology.kubernetes.io/zone": "[-A-Za-z0-9._]{1,63}",
    "topology.kubernetes.io/region": "[-A-Za-z0-9._]{1,63}",
}
"""Labels and annotations that Kubernetes itself sets."""


@dataclass(frozen=True, slots=True)
class PodFacts:
    """What variables may refer to besides ConfigMaps and Secrets."""

    workload: Workload
    objects: Objects
    node_name: str = ""
    service_account: str = "default"
    service_links: bool = True


@dataclass(slots=True)
class Environment:
    """The variables of one container, in the order in which they come to be."""

    facts: PodFacts
    limits: Mapping[str, str] = field(default_factory=dict)
    requests: Mapping[str, str] = field(default_factory=dict)
    any_value: frozenset[str] = frozenset()
    variables: dict[str, Variable] = field(default_factory=dict)
    static: dict[str, str] = field(default_factory=dict)
    """``env`` as written, for the commands of probes; empty where a value comes from elsewhere."""

    def set(self, name: str, value: Text, note: str) -> None:
        """The value may be overridden later."""
        self.variables.pop(name, None)
        self.variables[name] = Variable(name, value, note)

    def lookup(self, name: str) -> Text | None:
        """For ``$(NAME)``: a variable of the container, or of a service whose value only kubelet knows."""
        if name in self.variables:
            return self.variables[name].value
        return Text.matching(_API_SERVER[name]) if name in _API_SERVER else None

    def expanded(self, node: Node, given: str) -> Text:
        """A text with its references replaced."""

        def lookup(name: str) -> Text | None:
            found = self.lookup(name)
            if found is None and self.facts.service_links and _SERVICE.fullmatch(name):
                node.problem(f"$({name}) may be a variable of a service, whose value is not known here")
            return found

        return expand(given, lookup)

    def known_text(self, node: Node) -> str:
        """An argument of a command: expanded, and known."""
        found = self.expanded(node, node.text())
        if found.literal is None:
            hint = "a policy fixes commands; pass the value in a variable instead, or fix it with --env"
            node.problem("refers to a value that is only known when the pod starts", hint=hint)
            return ""
        return found.literal


def read(container: Fields, environment: Environment) -> None:
    """``envFrom`` and ``env`` of a container, in kubelet's order."""
    for node in container.items("envFrom"):
        _read_from(node, environment)
    for node in container.items("env"):
        _read_variable(node, environment)


# -- envFrom -----------------------------------------------------------------------------------------------------


def _read_from(node: Node, environment: Environment) -> None:
    with node.fields() as fields:
        prefix = fields.text("prefix")
        config_map, secret = fields.child("configMapRef"), fields.child("secretRef")
    if config_map is not None:
        _take_all(config_map, "ConfigMap", environment.facts.objects.config_map, prefix, environment)
    if secret is not None:
        _take_all(secret, "Secret", environment.facts.objects.secret, prefix, environment)
    if config_map is None and secret is None:
        node.problem("neither configMapRef nor secretRef")


def _take_all(
    fields: Fields, kind: str, find: Callable[[str, str], Data | None], prefix: str, environment: Environment
) -> None:
    with fields:
        name = fields.needed_text("name")
        fields.ignore("optional")
    data = find(environment.facts.workload.namespace, name)
    if data is None:
        fields.node.problem(f"{kind} {name} is not among the files given", hint=_give_file(kind))
        return
    for key, value in sorted(data.text.items()):
        if not re.fullmatch(r"[A-Za-z_.-][A-Za-z0-9_.-]*", prefix + key, re.ASCII):
            fields.node.problem(f"key {key!r} of {kind} {name} is a variable's name to newer versions of kubelet only")
        else:
            environment.set(prefix + key, Text.of(_checked(fields.node, value)), f"{kind} {name}")


# -- env ---------------------------------------------------------------------------------------------------------


def _read_variable(node: Node, environment: Environment) -> None:
    with node.fields() as fields:
        name = fields.needed_text("name")
        value = fields.get("value")
        source = fields.child("valueFrom")
    if "=" in name or not name:
        node.problem("a variable's name is not empty and has no '='")
        return
    environment.static[name] = ""
    if name in environment.any_value:
        environment.set(name, Text.matching(".*"), "any value, on request")
    elif value is not None and value.text():
        text = value.text()
        environment.static[name] = text
        _checked(value, text)
        environment.set(name, environment.expanded(value, text), "set in the manifest")
    elif source is not None:
        found = _value_from(source, environment)
        if found is not None:
            environment.set(name, found[0], found[1])
    else:
        environment.set(name, Text(), "set in the manifest")


def _value_from(source: Fields, environment: Environment) -> tuple[Text, str] | None:
    """Value and note; None where the variable is not set, or after a problem."""
    with source:
        config_map, secret = source.child("configMapKeyRef"), source.child("secretKeyRef")
        field_ref, resource = source.child("fieldRef"), source.child("resourceFieldRef")
    objects = environment.facts.objects
    if config_map is not None:
        return _key(config_map, "ConfigMap", objects.config_map, environment)
    if secret is not None:
        return _key(secret, "Secret", objects.secret, environment)
    if field_ref is not None:
        return _field(field_ref, environment.facts)
    if resource is not None:
        return _resource(resource, environment)
    source.node.problem("has no source that is known")
    return None


def _key(
    fields: Fields, kind: str, find: Callable[[str, str], Data | None], environment: Environment
) -> tuple[Text, str] | None:
    with fields:
        name, key = fields.needed_text("name"), fields.needed_text("key")
        optional = fields.flag("optional")
    data = find(environment.facts.workload.namespace, name)
    if data is None:
        fields.node.problem(f"{kind} {name} is not among the files given", hint=_give_file(kind))
        return None
    if key not in data.text:
        if key in data.binary:
            fields.node.problem(f"key {key!r} of {kind} {name} is not text")
        elif not optional:
            fields.node.problem(f"{kind} {name} has no key {key!r}")
        return None
    return Text.of(_checked(fields.node, data.text[key])), f"{kind} {name}"


def _give_file(kind: str) -> str:
    return f"give the file with the {kind} as well (--kubernetes FILE), or allow any value with --any-value NAME"


def _checked(node: Node, value: str) -> str:
    if "\n" in value:
        node.problem("a value with a newline, which the guest does not take in variables", hint="mount it as a file")
    return value


def _field(fields: Fields, facts: PodFacts) -> tuple[Text, str] | None:
    with fields:
        path = fields.needed_text("fieldPath")
        if fields.text("apiVersion", "v1") != "v1":
            fields.node.problem("apiVersion other than v1")
    found = _field_value(path, facts)
    if found is None:
        fields.node.problem(f"field {path} is not known")
        return None
    return found, f"the pod's {path}"


def _field_value(path: str, facts: PodFacts) -> Text | None:
    workload = facts.workload
    match path:
        case "metadata.name":
            name = workload.pod_name
            return Text.of(name.literal) if name.literal else Text.matching(name.expression)
        case "metadata.namespace":
            return Text.of(workload.namespace) if workload.namespace else Text.matching(DNS_NAME)
        case "metadata.uid":
            return Text.matching(UUID)
        case "spec.nodeName":
            return Text.of(facts.node_name) if facts.node_name else Text.matching(DNS_NAME)
        case "spec.serviceAccountName":
            return Text.of(facts.service_account)
        case "status.hostIP" | "status.podIP":
            return Text.matching(ADDRESS)
        case "status.hostIPs" | "status.podIPs":
            return Text.matching(ADDRESSES)
    member = _MEMBER.fullmatch(path)
    if member is None:
        return None
    given = workload.labels if member[1] == "labels" else workload.annotations
    if member[2] in given:
        return Text.of(given[member[2]])
    return Text.matching(_GENERATED_LABELS[member[2]]) if member[2] in _GENERATED_LABELS else Text()


def _resource(fields: Fields, environment: Environment) -> tuple[Text, str] | None:
    with fields:
        resource = fields.needed_text("resource")
        divisor_text = fields.get("divisor")
        fields.ignore("containerName")
    kind, _, name = resource.partition(".")
    if kind not in ("limits", "requests") or not name:
        fields.node.problem(f"resource {resource} is not known")
        return None
    amounts = environment.limits if kind == "limits" else {**environment.limits, **environment.requests}
    note = f"the container's {resource}"
    if name not in amounts:
        return Text.matching(NUMBER), note  # what the node has
    divisor = quantities.parse(divisor_text.text(number_as_text=True)) if divisor_text is not None else Fraction(1)
    amount = quantities.parse(amounts[name])
    if divisor is None or amount is None:
        fields.node.problem("a quantity that makes no sense")
        return None
    return Text.of(quantities.in_units_of(amount, divisor)), note
