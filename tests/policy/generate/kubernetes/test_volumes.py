# SPDX-License-Identifier: Apache-2.0
"""Volumes of manifests: the mounts that kubelet asks for, and what the runtime is told of their sizes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from parma_policy.generate.kubernetes import manifests
from parma_policy.generate.kubernetes.pod import PodSettings
from parma_policy.generate.problems import Problems
from parma_policy.generate.source import ContainerOptions
from parma_shim import pod_volumes
from tests.policy.generate.kubernetes.manifests import Json, pod
from tests.policy.generate.sources import write_documents


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
