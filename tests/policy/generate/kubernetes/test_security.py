# SPDX-License-Identifier: Apache-2.0
"""Security contexts: users, groups, privileges and seccomp profiles as kubelet asks for them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from parma_policy.model import Container
from tests.policy.generate.kubernetes.manifests import Json, pod


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
