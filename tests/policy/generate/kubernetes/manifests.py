# SPDX-License-Identifier: Apache-2.0
"""Documents of a manifest, right but for what a test changes."""

from __future__ import annotations

from typing import Any

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


def workload(kind: str, name: str = "web", **spec: Any) -> Json:
    template = {"metadata": {"labels": {"app": "x"}}, "spec": pod()["spec"]}
    version = "batch/v1" if "Job" in kind else "v1" if kind == "ReplicationController" else "apps/v1"
    inner: Json = {"template": template, **spec}
    if kind == "CronJob":
        inner = {"schedule": "* * * * *", "jobTemplate": {"spec": inner}}
    return {"apiVersion": version, "kind": kind, "metadata": {"name": name}, "spec": inner}
