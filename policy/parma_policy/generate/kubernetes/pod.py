# SPDX-License-Identifier: Apache-2.0
"""A pod's specification, and what is wanted of each of its containers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from parma_policy.generate.assemble import Variable, Wanted
from parma_policy.generate.kubernetes import environment, security, volumes
from parma_policy.generate.kubernetes.environment import Environment, PodFacts
from parma_policy.generate.kubernetes.handlers import read_handlers
from parma_policy.generate.kubernetes.objects import Objects
from parma_policy.generate.kubernetes.security import Security
from parma_policy.generate.kubernetes.volumes import MountContext, Volume
from parma_policy.generate.kubernetes.workloads import Workload
from parma_policy.generate.nodes import Fields, Node
from parma_policy.generate.patterns import DNS_NAME, NUMBER, Text, quoted
from parma_policy.generate.signals import signal_number
from parma_policy.generate.source import ContainerOptions, OptionsOf, SourceContainer
from parma_wire.errors import Malformed

# About where and when the pod runs, and who may look at it from outside; not about what it may do.
_IGNORED = (
    *("activeDeadlineSeconds", "affinity", "dnsConfig", "dnsPolicy", "hostAliases", "imagePullSecrets", "nodeSelector"),
    *("overhead", "preemptionPolicy", "priority", "priorityClassName", "readinessGates", "resources", "restartPolicy"),
    *("runtimeClassName", "schedulerName", "schedulingGates", "shareProcessNamespace", "subdomain"),
    *("terminationGracePeriodSeconds", "tolerations", "topologySpreadConstraints"),
)
_IGNORED_OF_CONTAINER = (
    *("imagePullPolicy", "ports", "resizePolicy", "restartPolicy", "restartPolicyRules", "stdin", "stdinOnce"),
    *("terminationMessagePolicy", "tty"),
)


@dataclass(frozen=True, slots=True)
class PodSettings:
    """What the command line says about all pods."""

    host_paths: frozenset[str] = frozenset()
    seccomp_root: Path | None = None


@dataclass(frozen=True, slots=True)
class _Pod:
    facts: PodFacts
    security: Security
    volumes: Mapping[str, Volume]
    token: bool
    hostname: str
    settings: PodSettings


def read_pod(workload: Workload, objects: Objects, settings: PodSettings, options: OptionsOf) -> list[SourceContainer]:
    """The containers of a workload's pods, in the order in which they start."""
    with workload.spec.fields() as spec:
        pod = _pod(spec, workload, objects, settings)
        nodes = [*spec.items("initContainers"), *spec.items("containers")]
    if not nodes:
        workload.spec.problem("the pod has no containers")
    return [_container(node, pod, options) for node in nodes]


def _pod(spec: Fields, workload: Workload, objects: Objects, settings: PodSettings) -> _Pod:
    spec.ignore(*_IGNORED)
    for name in ("hostNetwork", "hostPID", "hostIPC"):
        spec.refuse(name, "a confidential pod shares nothing with its host")
    spec.refuse("ephemeralContainers", "containers that are added later are not in a policy")
    spec.refuse("resourceClaims", "devices of the host are not supported")
    spec.refuse("hostnameOverride", "not supported")
    if spec.maybe_flag("hostUsers") is False:
        spec.node.members()["hostUsers"].problem("user namespaces are not supported; the VM is a stronger boundary")
    system = spec.child("os")
    if system is not None:
        with system:
            system.refuse("name", "only Linux is supported", harmless=("linux",))
    account = spec.text("serviceAccountName") or spec.text("serviceAccount") or "default"
    spec.ignore("serviceAccount")
    token = spec.maybe_flag("automountServiceAccountToken")
    facts = PodFacts(
        workload=workload,
        objects=objects,
        node_name=spec.text("nodeName"),
        service_account=account,
        service_links=spec.flag("enableServiceLinks", default=True),
    )
    return _Pod(
        facts=facts,
        security=security.read_pod(spec.child("securityContext"), settings.seccomp_root),
        volumes=volumes.read_volumes(spec, workload.claims, settings.host_paths),
        token=objects.mounts_token(workload.namespace, account) if token is None else token,
        hostname=_hostname(spec, workload),
        settings=settings,
    )


def _hostname(spec: Fields, workload: Workload) -> str:
    name = spec.text("hostname")
    expression = quoted(name) if name else workload.pod_name.hostname or workload.pod_name.expression
    return rf"{expression}(\.{DNS_NAME})?" if spec.flag("setHostnameAsFQDN") else expression


def _container(node: Node, pod: _Pod, options: OptionsOf) -> SourceContainer:
    with node.fields() as fields:
        name, image = fields.needed_text("name"), fields.needed_text("image")
        fields.ignore(*_IGNORED_OF_CONTAINER)
        fields.refuse("volumeDevices", "block devices are not supported")
        chosen = options(name)
        variables = _environment(fields, pod, chosen)
        secured = security.read_container(fields.child("securityContext"), pod.security, pod.settings.seccomp_root)
        execs, stop_signal = read_handlers(fields, variables.static)
        context = MountContext(
            container=name,
            volumes=pod.volumes,
            token=pod.token,
            termination_log=fields.text("terminationMessagePath", "/dev/termination-log"),
        )
        wanted = Wanted(
            name=name,
            entrypoint=_command(fields, "command", variables),
            arguments=_command(fields, "args", variables),
            env=tuple(variables.variables.values()),
            hostname=pod.hostname,
            service_env=pod.facts.service_links,
            working_dir=fields.maybe_text("workingDir"),
            mounts=volumes.read_mounts(fields, context),
            execs=execs,
            stop_signal=_checked_signal(fields, stop_signal),
        )
    workload = pod.facts.workload
    where = f"{workload.title} {node.path.partition(':')[2]}"
    return SourceContainer(node, name, image, where, _secured(wanted, secured), chosen)


def _environment(fields: Fields, pod: _Pod, chosen: ContainerOptions) -> Environment:
    limits, requests = _resources(fields)
    variables = Environment(pod.facts, limits, requests, any_value=frozenset(chosen.any_value))
    environment.read(fields, variables)
    if pod.facts.workload.indexed and "JOB_COMPLETION_INDEX" not in variables.variables:
        variables.variables["JOB_COMPLETION_INDEX"] = Variable(
            "JOB_COMPLETION_INDEX", Text.matching(NUMBER), "the indexed job's number"
        )
    for given in chosen.env:
        # As if the manifest said so last, so that commands see it too.
        variables.set(given.name, given.value, given.note)
    return variables


def _resources(fields: Fields) -> tuple[dict[str, str], dict[str, str]]:
    resources = fields.child("resources")
    if resources is None:
        return {}, {}
    with resources:
        resources.refuse("claims", "devices of the host are not supported")
        limits = {name: node.text(number_as_text=True) for name, node in resources.members("limits").items()}
        requests = {name: node.text(number_as_text=True) for name, node in resources.members("requests").items()}
    return limits, requests


def _command(fields: Fields, member: str, variables: Environment) -> tuple[str, ...] | None:
    node = fields.get(member)
    if node is None:
        return None
    return tuple(variables.known_text(item) for item in node.items())


def _checked_signal(fields: Fields, name: str) -> str:
    if name:
        try:
            signal_number(name)
        except Malformed as error:
            fields.node.problem(str(error))
            return ""
    return name


def _secured(wanted: Wanted, secured: Security) -> Wanted:
    return replace(
        wanted,
        user=None if secured.run_as_user is None else str(secured.run_as_user),
        kubelet_user=True,
        run_as_group=secured.run_as_group,
        non_root=secured.non_root,
        groups=secured.groups,
        image_groups=secured.image_groups,
        add=secured.add,
        drop=secured.drop,
        privileged=secured.privileged,
        no_new_privileges=secured.no_new_privileges,
        seccomp=secured.seccomp,
        read_only=secured.read_only,
    )
