# SPDX-License-Identifier: Apache-2.0
"""Kubernetes manifests: what is taken, what is refused, and what kubelet does in between."""

from __future__ import annotations

import base64
import json
import re
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest

from parma_policy.generate.assemble import Variable
from parma_policy.generate.kubernetes import manifests, quantities, workloads
from parma_policy.generate.kubernetes.expansion import expand_static
from parma_policy.generate.kubernetes.pod import PodSettings
from parma_policy.generate.patterns import Text
from parma_policy.generate.problems import Problems, SourceError
from parma_policy.generate.run import Settings
from parma_policy.generate.source import ContainerOptions
from parma_policy.model import Container
from parma_shim import pod_volumes
from parma_wire.errors import NotFound
from tests.policy.generate.sources import accepts, containers, policies, write_documents

Json = dict[str, Any]


def pod(container: Json | None = None, **spec: Any) -> Json:
    main = {"name": "main", "image": "app:1", **(container or {})}
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "box", "labels": {"app": "x"}},
        "spec": {"containers": [main], **spec},
    }


def config_map(name: str, **data: str) -> Json:
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": data}


@pytest.fixture
def made(tmp_path: Path) -> Any:
    """The containers of the only policy for some documents."""

    def make(*documents: Json, config: Json | None = None, **settings: Any) -> tuple[Container, ...]:
        path = write_documents(tmp_path / "manifest.yaml", documents)
        (policy,) = policies(Settings(kubernetes=[path], **settings), **(config or {}))
        return containers(policy)

    return make


@pytest.fixture
def refused(made: Any) -> Any:
    """The problems of documents, as the user sees them."""

    def refuse(*documents: Json, **settings: Any) -> str:
        with pytest.raises(SourceError) as caught:
            made(*documents, **settings)
        return str(caught.value)

    return refuse


# -- commands and variables --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("$(A)", "1"),
        ("$$(A)", "$(A)"),
        ("$$$(A)", "$1"),
        ("$(MISSING)", "$(MISSING)"),
        ("$(A", "$(A"),
        ("$A $", "$A $"),
        ("x$(A)y$(B)", "x1y$(A)"),
        ("$()", "$()"),
        ("", ""),
    ],
)
def test_references_expand_as_in_kubelet(given: str, expected: str) -> None:
    assert expand_static(given, {"A": "1", "B": "$(A)"}) == expected


@pytest.mark.parametrize(
    ("command", "args", "expected"),
    [
        (None, None, ("/entry", "serve")),
        (None, ["a"], ("/entry", "a")),
        (["/c"], None, ("/c",)),
        (["/c"], ["a"], ("/c", "a")),
        ([], [], ("/entry", "serve")),
    ],
)
def test_commands_and_images_merge_as_in_containerd(
    made: Any, command: list[str] | None, args: list[str] | None, expected: tuple[str, ...]
) -> None:
    (container,) = made(pod({"command": command, "args": args}))
    assert container.command == expected


def test_later_variables_see_earlier_ones_and_env_wins_over_env_from(made: Any) -> None:
    env = [{"name": "A", "value": "1"}, {"name": "B", "value": "$(A)$(C)"}, {"name": "C", "value": "3"}]
    container = {"env": env, "envFrom": [{"configMapRef": {"name": "m"}, "prefix": "P_"}], "args": ["$(B)$(P_k)"]}
    (found,) = made(pod(container), config_map("m", k="v", A="never"))
    assert found.command[1] == "1$(C)v"
    assert all(accepts(found, variable) for variable in ("A=1", "B=1$(C)", "C=3", "P_k=v", "P_A=never", "PATH=/bin"))
    assert not accepts(found, "A=never")


@pytest.mark.parametrize(
    ("path", "good", "bad"),
    [
        ("metadata.name", "box", "other"),
        ("metadata.namespace", "default", "Default"),
        ("metadata.uid", "0f0f0f0f-aaaa-bbbb-cccc-0123456789ab", "x"),
        ("metadata.labels['app']", "x", "y"),
        ("metadata.labels['absent']", "", "y"),
        ("metadata.labels['pod-template-hash']", "5d4f8c9b7", "E"),
        ("spec.nodeName", "node-1.example", "-"),
        ("spec.serviceAccountName", "default", "root"),
        ("status.podIP", "10.0.0.1", "10.0.0.1;x"),
        ("status.hostIP", "fe80::1", "no"),
        ("status.podIPs", "10.0.0.1,fd00::1", ","),
    ],
)
def test_fields_of_the_pod_become_patterns_where_they_are_not_known(made: Any, path: str, good: str, bad: str) -> None:
    (found,) = made(pod({"env": [{"name": "V", "valueFrom": {"fieldRef": {"fieldPath": path}}}]}))
    assert accepts(found, f"V={good}")
    assert not accepts(found, f"V={bad}")
    assert not accepts(found, f"V={good}\nX=1")


def test_secrets_are_resolved_from_either_form(made: Any) -> None:
    secret = {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": "s"},
        "data": {"a": base64.b64encode(b"1").decode(), "b": base64.b64encode(b"2").decode()},
        "stringData": {"b": "3"},
    }
    (found,) = made(pod({"envFrom": [{"secretRef": {"name": "s"}}]}), secret)
    assert accepts(found, "a=1")
    assert accepts(found, "b=3")


@pytest.mark.parametrize(
    ("reference", "says"),
    [
        ({"configMapKeyRef": {"name": "nowhere", "key": "k"}}, "ConfigMap nowhere is not among the files given"),
        ({"configMapKeyRef": {"name": "m", "key": "other"}}, "has no key 'other'"),
        ({"secretKeyRef": {"name": "m", "key": "k"}}, "Secret m is not among"),
        ({"fieldRef": {"fieldPath": "status.phase"}}, "field status.phase is not known"),
        ({"resourceFieldRef": {"resource": "limits"}}, "resource limits is not known"),
        ({"fileKeyRef": {"path": "x"}}, "valueFrom.fileKeyRef"),
    ],
)
def test_references_that_lead_nowhere_are_problems(refused: Any, reference: Json, says: str) -> None:
    text = refused(pod({"env": [{"name": "V", "valueFrom": reference}]}), config_map("m", k="v"))
    assert says in text
    assert "Pod/box:spec.containers[0].env[0].valueFrom" in text


def test_a_variable_of_any_value_needs_no_source(made: Any) -> None:
    container = {"env": [{"name": "V", "valueFrom": {"secretKeyRef": {"name": "nowhere", "key": "k"}}}]}
    (found,) = made(pod(container), options={"main": ContainerOptions(any_value=("V",))})
    assert accepts(found, "V=whatever")


def test_optional_keys_that_are_missing_set_nothing(made: Any) -> None:
    reference = {"configMapKeyRef": {"name": "m", "key": "other", "optional": True}}
    (found,) = made(pod({"env": [{"name": "V", "valueFrom": reference}]}), config_map("m", k="v"))
    assert not accepts(found, "V=")


def test_a_command_cannot_contain_what_is_not_known(refused: Any) -> None:
    env = [{"name": "IP", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}}]
    text = refused(pod({"env": env, "args": ["$(IP)", "$(KUBERNETES_SERVICE_HOST)", "$(DB_SERVICE_PORT)"]}))
    assert text.count("only known when the pod starts") == 2
    assert "$(DB_SERVICE_PORT) may be a variable of a service" in text


def test_variables_from_the_command_line_count_for_commands_too(made: Any) -> None:
    chosen = ContainerOptions(env=(Variable("IP", Text.of("10.0.0.1")),))
    env = [{"name": "IP", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}}]
    (found,) = made(pod({"env": env, "args": ["$(IP)"]}), options={"main": chosen})
    assert found.command == ("/entry", "10.0.0.1")
    assert not accepts(found, "IP=10.0.0.2")


def test_values_with_newlines_are_refused(refused: Any) -> None:
    assert "newline" in refused(pod({"env": [{"name": "V", "value": "a\nb"}]}))
    assert "newline" in refused(pod({"envFrom": [{"configMapRef": {"name": "m"}}]}), config_map("m", k="a\nb"))


def test_service_variables_are_accepted_unless_links_are_off(made: Any) -> None:
    given = ("WEB_SERVICE_HOST=10.0.0.1", "WEB_PORT_80_TCP=tcp://[fd00::1]:80", "KUBERNETES_PORT=tcp://10.0.0.1:443")
    (found,) = made(pod())
    assert all(accepts(found, variable) for variable in given)
    assert not accepts(found, "WEB_SERVICE_HOST=evil host")
    assert not accepts(found, "LD_PRELOAD=/x.so")
    (found,) = made(pod(enableServiceLinks=False))
    assert [accepts(found, variable) for variable in given] == [False, False, True]


def test_a_service_variable_cannot_replace_one_that_the_pod_sets(made: Any) -> None:
    (found,) = made(pod({"env": [{"name": "DB_SERVICE_HOST", "value": "127.0.0.1"}]}))
    assert [rule.describe() for rule in found.env_rules.unmet(("PATH=/bin", "DB_SERVICE_HOST=6.6.6.6"))]


@pytest.mark.parametrize(
    ("text", "number"),
    [("1", 1), ("500m", Fraction(1, 2)), ("64Mi", 64 * 2**20), ("1.5G", 1_500_000_000), ("2e3", 2000), ("1k", 1000)],
)
def test_quantities(text: str, number: Fraction) -> None:
    assert quantities.parse(text) == number


@pytest.mark.parametrize("text", ["", "x", "1Q", "1 Mi", "--1", "1e", "0x10", "1.2.3"])
def test_what_is_no_quantity(text: str) -> None:
    assert quantities.parse(text) is None


@pytest.mark.parametrize(
    ("reference", "value"),
    [
        ({"resource": "limits.memory"}, "67108864"),
        ({"resource": "limits.memory", "divisor": "1Mi"}, "64"),
        ({"resource": "limits.cpu"}, "2"),
        ({"resource": "limits.cpu", "divisor": "1m"}, "1500"),
        ({"resource": "requests.cpu", "divisor": "1m"}, "250"),
        ({"resource": "requests.memory"}, "67108864"),
    ],
)
def test_a_container_sees_its_resources_rounded_up(made: Any, reference: Json, value: str) -> None:
    resources = {"limits": {"memory": "64Mi", "cpu": "1500m"}, "requests": {"cpu": "250m"}}
    env = [{"name": "V", "valueFrom": {"resourceFieldRef": reference}}]
    (found,) = made(pod({"env": env, "resources": resources}))
    assert accepts(found, f"V={value}")
    assert not accepts(found, "V=1")


# -- workloads ---------------------------------------------------------------------------------------------------


def workload(kind: str, name: str = "web", **spec: Any) -> Json:
    template = {"metadata": {"labels": {"app": "x"}}, "spec": pod()["spec"]}
    version = "batch/v1" if "Job" in kind else "v1" if kind == "ReplicationController" else "apps/v1"
    inner: Json = {"template": template, **spec}
    if kind == "CronJob":
        inner = {"schedule": "* * * * *", "jobTemplate": {"spec": inner}}
    return {"apiVersion": version, "kind": kind, "metadata": {"name": name}, "spec": inner}


@pytest.mark.parametrize(
    ("document", "good", "bad"),
    [
        (workload("Deployment"), "web-7d4b9c5f68-x2vbn", "web-other"),
        (workload("ReplicaSet"), "web-x2vbn", "web"),
        (workload("ReplicationController"), "web-x2vbn", "web-aeiou"),
        (workload("DaemonSet"), "web-x2vbn", "web-7d4b9c5f68-x2vbn"),
        (workload("StatefulSet", serviceName="s"), "web-0", "web-x"),
        (workload("Job"), "web-x2vbn", "web-0"),
        (workload("Job", completionMode="Indexed"), "web-3", "web-x2vbn"),
        (workload("CronJob"), "web-28000000-x2vbn", "web-x2vbn"),
        (pod(hostname="host"), "host", "box"),
        (pod(), "box", "boxx"),
        (pod(setHostnameAsFQDN=True), "box.sub.ns.svc.cluster.local", "box."),
        (workload("Deployment", "w" * 50), f"{'w' * 50}-7d4b9c5x2vbn", "other"),
    ],
    ids=lambda value: value["kind"] if isinstance(value, dict) else None,
)
def test_host_names_follow_the_kind(made: Any, document: Json, good: str, bad: str) -> None:
    (found,) = made(document)
    assert accepts(found, f"HOSTNAME={good}")
    assert not accepts(found, f"HOSTNAME={bad}")


def test_generated_names_are_cut_where_kubernetes_cuts_them() -> None:
    expression = workloads.generated(f"{'n' * 57}-", workloads.HASH, 10)
    assert re.fullmatch(expression, "n" * 57 + "-x2vbn")
    assert not re.fullmatch(expression, "m" * 57 + "-x2vbn")


def test_an_indexed_job_has_its_number(made: Any) -> None:
    (found,) = made(workload("Job", completionMode="Indexed"))
    assert accepts(found, "JOB_COMPLETION_INDEX=12")
    assert not accepts(found, "JOB_COMPLETION_INDEX=x")


def test_each_workload_has_its_own_policy_and_lists_are_opened(tmp_path: Path) -> None:
    listed = {"apiVersion": "v1", "kind": "List", "items": [workload("Deployment"), config_map("m")]}
    path = write_documents(tmp_path / "m.yaml", [pod(), listed, {"apiVersion": "v1", "kind": "Service"}])
    made = policies(Settings(kubernetes=[path]))
    assert [(item.name, item.title) for item in made] == [("pod-box", "Pod/box"), ("deployment-web", "Deployment/web")]
    (together,) = policies(Settings(kubernetes=[path], together=True))
    assert len(containers(together)) == 2
    (only,) = policies(Settings(kubernetes=[path], only=["web"]))
    assert only.title == "Deployment/web"
    with pytest.raises(NotFound, match="there are Pod/box, Deployment/web"):
        policies(Settings(kubernetes=[path], only=["db"]))


def test_what_is_not_asked_for_need_not_be_in_order(tmp_path: Path) -> None:
    path = write_documents(tmp_path / "m.yaml", [pod(hostNetwork=True), workload("Deployment")])
    (only,) = policies(Settings(kubernetes=[path], only=["Deployment/web"]))
    assert only.name == "deployment-web"


def test_an_object_that_is_given_twice_is_a_problem(refused: Any) -> None:
    assert "ConfigMap m is given twice" in refused(pod(), config_map("m", a="1"), config_map("m", a="2"))


def test_options_for_a_container_that_does_not_exist_are_an_error(made: Any) -> None:
    with pytest.raises(NotFound, match="no container is called 'other'"):
        made(pod(), options={"other": ContainerOptions(any_value=("A",))})


def test_init_containers_and_sidecars_are_containers(made: Any) -> None:
    init = [{"name": "i", "image": "app:1"}, {"name": "s", "image": "app:1", "restartPolicy": "Always"}]
    found = made(pod({"args": ["main"]}, initContainers=init))
    assert [container.name for container in found] == ["i", "s", "main"]
    assert found[2].command == ("/entry", "main")


def test_the_pods_own_container_is_allowed_on_request(made: Any) -> None:
    found = made(pod({"args": ["main"]}), sandbox_image="pause:3")
    assert [container.name for container in found] == ["POD", "main"]


# -- security ----------------------------------------------------------------------------------------------------


def test_users_and_groups_are_those_that_kubelet_asks_for(made: Any) -> None:
    def ids(security: Json, pod_security: Json | None = None, **config: Any) -> tuple[str, list[str]]:
        document = pod({"securityContext": security}, securityContext=pod_security or {})
        (found,) = made(document, config=config)
        return found.user.user.pattern, [group.pattern for group in found.user.groups]

    assert ids({}) == ("0", ["0"])
    assert ids({"runAsUser": 1000}) == ("1000", ["7", "1000"])
    assert ids({"runAsUser": 1000, "runAsGroup": 5}) == ("1000", ["5", "7"])
    assert ids({}, {"runAsUser": 1000, "fsGroup": 9, "supplementalGroups": [8]}) == ("1000", ["7", "8", "9", "1000"])
    assert ids({"runAsUser": 0}, {"runAsUser": 1000}) == ("0", ["0"])
    strict = {"runAsUser": 1000, "supplementalGroups": [8], "supplementalGroupsPolicy": "Strict"}
    assert ids({}, strict) == ("1000", ["8", "1000"])
    # Kubelet passes on the user that the image says, and not its group.
    assert ids({}, User="1000:44") == ("1000", ["7", "44", "1000"])
    assert ids({}, User="app") == ("1000", ["7", "1000"])


def test_run_as_non_root_is_checked(made: Any, refused: Any) -> None:
    assert "must not run as root" in refused(pod(securityContext={"runAsNonRoot": True}))
    made(pod(securityContext={"runAsNonRoot": True, "runAsUser": 1}))


def test_privileges_are_those_that_kubelet_asks_for(made: Any) -> None:
    def of(security: Json) -> Container:
        (found,) = made(pod({"securityContext": security}))
        assert isinstance(found, Container)
        return found

    assert not of({}).no_new_privileges
    assert of({"allowPrivilegeEscalation": False}).no_new_privileges
    assert of({"privileged": True}).allow_elevated
    dropped = of({"capabilities": {"drop": ["ALL"], "add": ["net_bind_service"]}}).capabilities
    assert dropped is not None
    assert dropped.effective == ("CAP_NET_BIND_SERVICE",)
    everything = of({"capabilities": {"add": ["ALL"], "drop": ["SYS_ADMIN"]}}).capabilities
    assert everything is not None
    assert len(everything.bounding) == 40


def test_seccomp_profiles(made: Any, refused: Any, tmp_path: Path) -> None:
    def sha256(profile: Json, **settings: Any) -> str:
        (found,) = made(pod(securityContext={"seccompProfile": profile}), **settings)
        digest: str = found.seccomp_profile_sha256
        return digest

    assert sha256({"type": "Unconfined"}) == ""
    default = sha256({"type": "RuntimeDefault"})
    assert default
    assert sha256({"type": "RuntimeDefault"}, seccomp_default="containerd-1.7") != default
    (tmp_path / "profiles").mkdir()
    profile = tmp_path / "profiles/p.json"
    profile.write_text(json.dumps({"defaultAction": "SCMP_ACT_ALLOW"}))
    local = {"type": "Localhost", "localhostProfile": "profiles/p.json"}
    assert sha256(local, seccomp_root=tmp_path) not in ("", default)
    assert "--seccomp-root" in refused(pod(securityContext={"seccompProfile": local}))
    outside = {"type": "Localhost", "localhostProfile": "../../etc/passwd"}
    assert "leads out" in refused(pod(securityContext={"seccompProfile": outside}), seccomp_root=tmp_path)
    profile.write_text(json.dumps({"defaultAction": "SCMP_ACT_ALLOW", "archMap": []}))
    assert "unknown field" in refused(pod(securityContext={"seccompProfile": local}), seccomp_root=tmp_path)


@pytest.mark.parametrize(
    ("document", "path"),
    [
        (pod(hostNetwork=True), "spec.hostNetwork"),
        (pod(hostPID=True), "spec.hostPID"),
        (pod(hostIPC=True), "spec.hostIPC"),
        (pod(hostUsers=False), "spec.hostUsers"),
        (pod(ephemeralContainers=[{"name": "x"}]), "spec.ephemeralContainers"),
        (pod(os={"name": "windows"}), "spec.os.name"),
        (pod(noSuchField=1), "spec.noSuchField"),
        (pod({"noSuchField": 1}), "spec.containers[0].noSuchField"),
        (pod({"volumeDevices": [{"name": "x"}]}), "spec.containers[0].volumeDevices"),
        (pod({"securityContext": {"procMount": "Unmasked"}}), "spec.containers[0].securityContext.procMount"),
        (pod({"securityContext": {"seLinuxOptions": {"level": "s0"}}}), "securityContext.seLinuxOptions"),
        (pod({"securityContext": {"appArmorProfile": {"type": "RuntimeDefault"}}}), "appArmorProfile.type"),
        (pod({"securityContext": {"capabilities": {"add": ["FLY"]}}}), "capabilities.add[0]"),
        (pod({"securityContext": {"runAsUser": -1}}), "securityContext.runAsUser"),
        (pod({"resources": {"claims": [{"name": "gpu"}]}}), "resources.claims"),
        (pod(volumes=[{"name": "v", "hostPath": {"path": "/etc"}}]), "spec.volumes[0].hostPath"),
        (pod(volumes=[{"name": "v", "persistentVolumeClaim": {"claimName": "c"}}]), "volumes[0].persistentVolumeClaim"),
        (pod(volumes=[{"name": "v"}]), "spec.volumes[0]"),
        (pod({"lifecycle": {"preStop": {"exec": {}}}}), "lifecycle.preStop.exec"),
    ],
    ids=lambda value: value if isinstance(value, str) else None,
)
def test_what_cannot_be_honoured_is_a_problem_and_can_be_set_aside(
    refused: Any, made: Any, document: Json, path: str
) -> None:
    text = refused(document)
    assert path in text
    named = re.findall(r"^  (\S+?)(?: \(line \d+\))?: ", text, re.MULTILINE)
    made(document, ignored=named)


@pytest.mark.parametrize(
    ("document", "says"),
    [
        ({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "x"}}, "'spec' is missing"),
        (
            {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "x"}, "spec": {}},
            "'template' is missing",
        ),
        ({**workload("Deployment"), "apiVersion": "extensions/v1beta1"}, "use apps/v1"),
        ({"apiVersion": "x/v1", "kind": "Unknown", "metadata": {"name": "x"}}, "kind Unknown is not known"),
        ({**pod(), "metadata": {}}, "metadata.name is missing"),
        ({**pod(), "spec": {"containers": []}}, "no containers"),
        (workload("StatefulSet", volumeClaimTemplates=[{"metadata": {"name": "d"}}]), "not supported"),
    ],
)
def test_documents_that_make_no_sense_are_problems(refused: Any, document: Json, says: str) -> None:
    assert says in refused(document)


# -- volumes and handlers ----------------------------------------------------------------------------------------


def test_mounts_are_those_that_kubelet_asks_for(made: Any) -> None:
    mounts = [
        {"name": "e", "mountPath": "/e"},
        {"name": "e", "mountPath": "/ro", "readOnly": True},
        {"name": "c", "mountPath": "/c"},
        {"name": "c", "mountPath": "/one", "subPath": "key"},
        {"name": "h", "mountPath": "/h", "mountPropagation": "HostToContainer"},
    ]
    volumes = [
        {"name": "e", "emptyDir": {}},
        {"name": "c", "configMap": {"name": "m"}},
        {"name": "h", "hostPath": {"path": "/srv/h.d"}},
    ]
    (found,) = made(pod({"volumeMounts": mounts}, volumes=volumes), host_paths=frozenset({"/srv/h.d"}))
    by_destination = {mount.destination: (mount.source, set(mount.options)) for mount in found.mounts}
    assert by_destination["/e"] == ("sandbox:///volumes/empty-dir/e", {"rbind", "rprivate", "rw"})
    assert by_destination["/ro"] == ("sandbox:///volumes/empty-dir/e", {"rbind", "rprivate", "ro"})
    assert by_destination["/c"] == ("sandbox:///volumes/configmap/c", {"rbind", "rprivate", "ro"})
    assert by_destination["/one"][0] == "sandbox:///volume-subpaths/c/main/3"
    assert by_destination["/h"] == ("sandbox:///host/srv/h\\.d", {"rbind", "rslave", "rw"})
    for destination in ("/etc/hosts", "/etc/hostname", "/etc/resolv.conf", "/dev/termination-log"):
        assert destination in by_destination


@pytest.mark.parametrize(
    ("mount", "says"),
    [
        ({"name": "x", "mountPath": "/x"}, "no volume 'x'"),
        ({"name": "e", "mountPath": "x"}, "not an absolute path"),
        ({"name": "e", "mountPath": "/a/../b"}, "not an absolute path"),
        ({"name": "e", "mountPath": "/x", "subPath": "y"}, "part of a volume"),
        ({"name": "e", "mountPath": "/x", "mountPropagation": "Bidirectional"}, "out of the VM"),
        ({"name": "e", "mountPath": "/x", "recursiveReadOnly": "Enabled"}, "not supported"),
    ],
)
def test_mounts_that_cannot_be_had_are_problems(refused: Any, mount: Json, says: str) -> None:
    assert says in refused(pod({"volumeMounts": [mount]}, volumes=[{"name": "e", "emptyDir": {}}]))


def limits(tmp_path: Path, document: Json) -> dict[str, str]:
    """What the generator would put into the manifest besides the policy."""
    path = write_documents(tmp_path / "manifest.yaml", [document])
    (unit,) = manifests.read([path], Problems("manifest"), PodSettings(), lambda _: ContainerOptions())
    return dict(unit.annotations())


def test_limits_of_empty_dirs_are_told_to_the_runtime(tmp_path: Path) -> None:
    volumes = [
        {"name": "a", "emptyDir": {"sizeLimit": "1.5Gi"}},
        {"name": "b", "emptyDir": {"medium": "", "sizeLimit": "100M"}},
        {"name": "c", "emptyDir": {"sizeLimit": 1000}},
        {"name": "d", "emptyDir": {"sizeLimit": "1500m"}},
        {"name": "e", "emptyDir": {"sizeLimit": "1e3"}},
        {"name": "memory", "emptyDir": {"medium": "Memory", "sizeLimit": "1Gi"}},
        {"name": "none", "emptyDir": {}},
        {"name": "zero", "emptyDir": {"sizeLimit": "0"}},
        {"name": "map", "configMap": {"name": "m"}},
    ]
    document = pod(volumes=volumes)
    text = limits(tmp_path, document)["io.parma.volume-limits"]
    assert text == "a=1536Mi,b=100000000,c=1000,d=2,e=1000"
    assert pod_volumes.limits({pod_volumes.LIMITS_ANNOTATION: text})["a"] == 3 << 29
    document["metadata"]["annotations"] = {"io.parma.volume-limits": "none=1Gi, a=1Mi"}
    assert limits(tmp_path, document)["io.parma.volume-limits"] == f"{text},none=1Gi"
    assert limits(tmp_path, pod(volumes=volumes[5:])) == {}
    assert limits(tmp_path, pod()) == {}


def test_limits_that_make_no_sense_are_problems(refused: Any) -> None:
    for wrong in ("much", "-1", "2Ti"):
        document = pod(volumes=[{"name": "a", "emptyDir": {"sizeLimit": wrong}}])
        assert "volumes[0].emptyDir.sizeLimit" in refused(document)


def test_a_path_of_the_host_that_is_set_aside_is_not_mounted(made: Any) -> None:
    volumes = [{"name": "h", "hostPath": {"path": "/etc"}}]
    document = pod({"volumeMounts": [{"name": "h", "mountPath": "/h"}]}, volumes=volumes)
    (found,) = made(document, ignored=["Pod/box:spec.volumes[0].hostPath"])
    assert "/h" not in {mount.destination for mount in found.mounts}


def test_the_token_is_mounted_unless_somebody_says_no(made: Any) -> None:
    place = "/var/run/secrets/kubernetes.io/serviceaccount"
    account = {
        "apiVersion": "v1",
        "kind": "ServiceAccount",
        "metadata": {"name": "quiet"},
        "automountServiceAccountToken": False,
    }

    def has_token(*documents: Json) -> bool:
        (found,) = made(*documents)
        return place in {mount.destination for mount in found.mounts}

    assert has_token(pod())
    assert not has_token(pod(automountServiceAccountToken=False))
    assert not has_token(pod(serviceAccountName="quiet"), account)
    assert has_token(pod(serviceAccountName="quiet", automountServiceAccountToken=True), account)


def test_probes_and_hooks_that_run_commands_are_in_the_exec_list(made: Any) -> None:
    env = [{"name": "A", "value": "1"}, {"name": "B", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}}]
    container = {
        "env": env,
        "livenessProbe": {"exec": {"command": ["l", "$(A)", "$(B)", "$(C)"]}, "periodSeconds": 1},
        "readinessProbe": {"tcpSocket": {"port": 1}},
        "startupProbe": {"exec": {"command": ["s"]}},
        "lifecycle": {
            "postStart": {"exec": {"command": ["p", "$(A)"]}},
            "preStop": {"sleep": {"seconds": 1}},
            "stopSignal": "SIGWINCH",
        },
    }
    (found,) = made(pod(container))
    assert [process.command for process in found.exec_processes] == [
        ("s",),
        # Kubelet expands what is written in the manifest; what comes from elsewhere is empty to it.
        ("l", "1", "", "$(C)"),
        ("p", "$(A)"),
    ]
    assert 28 in found.signals
