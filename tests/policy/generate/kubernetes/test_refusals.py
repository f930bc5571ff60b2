# SPDX-License-Identifier: Apache-2.0
"""What a manifest may ask for and cannot have, and manifests that make no sense: problems, by name."""

from __future__ import annotations

import re
from typing import Any

import pytest

from tests.policy.generate.kubernetes.manifests import Json, config_map, pod, workload


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


def test_an_object_that_is_given_twice_is_a_problem(refused: Any) -> None:
    assert "ConfigMap m is given twice" in refused(pod(), config_map("m", a="1"), config_map("m", a="2"))
