# SPDX-License-Identifier: Apache-2.0
"""The annotation in a manifest: put in, everything else as written."""

from __future__ import annotations

import difflib

import pytest
import yaml

from parma_policy.annotation import ANNOTATION, VOLUME_LIMITS, load_annotation
from parma_policy.generate.kubernetes.insert import count, insert
from parma_wire.errors import Unsupported
from tests.policy.generate.builders import VECTORS, app_image, parma

BLOCK = """\
# a comment
apiVersion: apps/v1
kind: Deployment
metadata:
  name: web   # its name
spec:
  template:
    metadata:
      annotations:
        # kept
        other: "1"
      labels: {app: web}
    spec:
      containers:
      - name: c
---
apiVersion: v1
kind: ConfigMap
metadata: {name: m}
---
apiVersion: batch/v1
kind: CronJob
metadata: {name: j}
spec:
  jobTemplate:
    spec:
      template:
        spec: {containers: [{name: c}]}
"""


def added(before: str, after: str) -> list[str]:
    """The lines that were put in; none may be gone."""
    lines = list(difflib.ndiff(before.splitlines(), after.splitlines()))
    assert not [line for line in lines if line.startswith("- ")]
    return [line[2:] for line in lines if line.startswith("+ ")]


def test_only_what_must_be_is_put_in() -> None:
    document = BLOCK.replace("spec: {containers: [{name: c}]}", "spec:\n          containers: [{name: c}]")
    assert added(document, insert(document, [{ANNOTATION: "A"}, {ANNOTATION: "B"}], "parma")) == [
        f'        {ANNOTATION}: "A"',
        '      runtimeClassName: "parma"',
        "        metadata:",
        "          annotations:",
        f'            {ANNOTATION}: "B"',
        '          runtimeClassName: "parma"',
    ]


@pytest.mark.parametrize(
    "text",
    [
        BLOCK,
        "kind: Pod\nmetadata: {name: x}\nspec: {}\n",
        "kind: Pod\nmetadata: {name: x, annotations: {a: b}}\nspec: {runtimeClassName: old}\n",
        "kind: Pod\nspec:\n  containers: []\n",
        '{"kind": "Pod", "metadata": {"name": "x"}, "spec": {"containers": []}}',
        "kind: List\nitems:\n- kind: Pod\n  metadata:\n    name: x\n  spec:\n    containers: []\n",
        f"kind: Pod\nmetadata:\n  annotations:\n    {ANNOTATION}: old\nspec:\n  runtimeClassName: old\n",
        "kind: Pod\nmetadata:\n    name: x\nspec:\n    containers: []\n",
        "kind: Pod\nmetadata:\n  annotations: {}\nspec: {containers: []}\n",
        "---\n# only a comment\n---\nkind: Pod\nmetadata:\n  annotations:\nspec:\n  a: b\n",
    ],
)
def test_styles_of_manifests(text: str) -> None:
    names = [f"N{number}" for number in range(count(text))]
    annotations = [{ANNOTATION: name, VOLUME_LIMITS: f"v={name}"} for name in names]
    after = insert(text, annotations, "parma")
    for name in names:
        assert after.count(f'"{name}"') == 1
        assert after.count(f'"v={name}"') == 1
    assert insert(after, annotations, "parma") == after
    assert len(list(yaml.safe_load_all(after))) == len(list(yaml.safe_load_all(text)))


def test_without_a_runtime_class_none_is_put_in() -> None:
    assert "runtimeClassName" not in insert(BLOCK, [{ANNOTATION: "A"}, {ANNOTATION: "B"}], "")


def test_limits_of_volumes_that_are_there_are_replaced() -> None:
    before = f"kind: Pod\nmetadata:\n  annotations:\n    {VOLUME_LIMITS}: a=1Gi  # by hand\nspec: {{containers: []}}\n"
    after = insert(before, [{ANNOTATION: "A", VOLUME_LIMITS: "a=2Gi"}], "")
    assert f'    {ANNOTATION}: "A"\n    {VOLUME_LIMITS}: "a=2Gi"  # by hand\n' in after


def test_a_template_that_two_workloads_share_is_not_changed() -> None:
    first = "- kind: Pod\n  metadata: &m\n    name: x\n  spec: {}\n"
    shared = f"kind: List\nitems:\n{first}- kind: Pod\n  metadata: *m\n  spec: {{}}\n"
    with pytest.raises(Unsupported, match="anchor"):
        insert(shared, [{ANNOTATION: "A"}, {ANNOTATION: "B"}], "")


def test_the_command_writes_manifests_with_their_policies(tmp_path, capsys) -> None:  # type: ignore[no-untyped-def]
    case = VECTORS / "kubernetes"
    manifest = tmp_path / "m.yaml"
    manifest.write_text((case / "workloads.yaml").read_text())
    arguments = ["--no-cache", "--kubernetes", manifest, "--image", f"app:1={app_image(tmp_path / 'app.tar')}"]
    arguments += ["--env", "migrate:EXTRA=given", "--exec", 'main:["/bin/ls"]', "--any-value", "main:SESSION"]
    arguments += ["--ignore-field", "Deployment/web:spec.template.spec.containers[0].securityContext.seLinuxOptions"]
    out = tmp_path / "out.yaml"
    objects = tmp_path / "objects.yaml"
    objects.write_text((case / "objects.yaml").read_text())
    assert parma("policy", "generate", *arguments, "--kubernetes", objects, "--in-place", "--annotation") == 0
    deployment, pod, job = yaml.safe_load_all(manifest.read_text())
    assert VOLUME_LIMITS not in deployment["spec"]["template"]["metadata"]["annotations"]  # kubelet's own, in memory
    template = deployment["spec"]["template"]
    assert template["spec"]["runtimeClassName"] == "parma"
    policy = load_annotation(template["metadata"]["annotations"][ANNOTATION])
    assert policy.decode() == (case / "deployment-web.rego").read_text()
    assert load_annotation(pod["metadata"]["annotations"][ANNOTATION])
    assert job["spec"]["jobTemplate"]["spec"]["template"]["metadata"]["annotations"]
    assert objects.read_text() == (case / "objects.yaml").read_text()
    printed = capsys.readouterr().out.splitlines()
    assert printed[0] == "# Deployment/web"
    assert printed[1] == f"{ANNOTATION}: {template['metadata']['annotations'][ANNOTATION]}"
    assert not out.exists()
    written = manifest.read_bytes()
    assert parma("policy", "generate", *arguments, "--kubernetes", objects, "--in-place") == 0
    assert manifest.read_bytes() == written  # what it puts in does not change what it makes
