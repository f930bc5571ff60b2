# SPDX-License-Identifier: Apache-2.0
"""Workloads of each kind: the pods that they make, what these are called, and which are asked for."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from parma_policy.generate.kubernetes import workloads
from parma_policy.generate.run import Settings
from parma_policy.generate.source import ContainerOptions
from parma_wire.errors import NotFound
from tests.policy.generate.kubernetes.manifests import Json, config_map, pod, workload
from tests.policy.generate.sources import accepts, containers, policies, write_documents


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
