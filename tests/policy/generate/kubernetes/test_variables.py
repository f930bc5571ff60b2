# SPDX-License-Identifier: Apache-2.0
"""Variables of manifests: what is known is pinned, what kubelet decides later is a pattern."""

from __future__ import annotations

import base64
from fractions import Fraction
from typing import Any

import pytest

from parma_policy.generate.kubernetes import quantities
from parma_policy.generate.source import ContainerOptions
from tests.policy.generate.kubernetes.manifests import Json, config_map, pod
from tests.policy.generate.sources import accepts


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
