# SPDX-License-Identifier: Apache-2.0
"""Between the enforcer and the policy: how it is loaded, what it is asked, what its answer means."""

from __future__ import annotations

import hashlib
import threading

import pytest

from parma_guest import decisions, requests
from parma_guest.decisions import Engine, FrameworkEngine, OpenDoorEngine, Verdict
from parma_guest.requests import MountDevice
from parma_guest.users import Identity
from parma_guest.values import Capabilities, ContainerId
from parma_policy import model
from parma_policy.framework import State
from parma_policy.framework.decision import Decision, Reason
from parma_policy.requests import LoadFragment, LoadTransparencyTrustList, Receipt
from parma_wire import guest_pb2 as pb
from parma_wire.errors import ParmaError
from tests.policy.builders import ID, LAYERS, Json, container, creation, disk, rootfs, text


def test_no_policy_is_read_while_its_modules_are_being_imported() -> None:
    read = threading.Event()

    def load() -> None:
        with pytest.raises(ParmaError):
            decisions.FrameworkEngine(b"not a policy")
        read.set()

    with decisions._importing:  # as `preload` holds it
        loader = threading.Thread(target=load, daemon=True)
        loader.start()
        assert not read.wait(0.1)
    loader.join(30)
    assert read.is_set()


def test_preloading_leaves_nothing_to_import() -> None:
    decisions.preload()
    decisions.preload()
    with pytest.raises(ParmaError):
        decisions.FrameworkEngine(b"not a policy")


def test_a_created_container_reaches_what_the_policy_says() -> None:
    engine = FrameworkEngine(text(container(attestation=["/key/derive"])).encode())
    state = engine.initial_state()
    for number, layer in enumerate(LAYERS):
        verdict, state = engine.decide(state, "mount_device", {"target": disk(number), "deviceHash": layer})
    targets = [disk(number) for number in range(len(LAYERS))][::-1]
    overlay = {"containerID": ID, "layerPaths": targets, "target": rootfs()}
    verdict, state = engine.decide(state, "mount_overlay", overlay)
    assert not verdict.attestation
    verdict, state = engine.decide(state, "create_container", creation())
    assert verdict.attestation == {"/key/derive"}
    assert len(verdict.identity) == 32


@pytest.mark.parametrize(
    ("containers", "more", "wanted"),
    [
        ([container(attestation=[])], {}, False),
        ([container(attestation=["/key/derive", "/aa/token", "/attest/raw"])], {}, False),
        ([container(attestation=[]), container(attestation=["/attest/combined"])], {}, True),
        ([container()], {}, True),
        (
            [container(attestation=[])],
            {"fragments": [{"issuer": "i", "feed": "f", "minimum_svn": "1", "includes": ["containers"]}]},
            True,
        ),
    ],
)
def test_endorsements_are_wanted_where_a_container_could_pass_them_on(
    containers: list[Json], more: Json, wanted: bool
) -> None:
    assert FrameworkEngine(text(*containers, **more).encode()).wants_endorsements() is wanted


def layer() -> MountDevice:
    return requests.mount_device(pb.MountDeviceRequest(lun=1, target=disk(3), device_hash="ab" * 32, data_blocks=2))


def test_the_policy_is_asked_about_storage_in_the_words_of_existing_policies() -> None:
    container, directory = ContainerId(ID), f"/run/gcs/c/{ID}"
    overlay = requests.mount_overlay(pb.MountOverlayRequest(container_id=ID, layer_targets=[disk(3), disk(0)]))
    assert decisions.configure_network() == {}
    assert decisions.mount_device(layer()) == {
        "target": disk(3),
        "deviceHash": "ab" * 32,
        "mountPathRegex": "/run/mounts/scsi/m[0-9]+",
    }
    assert decisions.unmount_device(layer().target) == {"unmountTarget": disk(3)}
    assert decisions.rw_mount_device(container) == {
        "target": directory,
        "encrypted": True,
        "ensureFilesystem": True,
        "filesystem": "ext4",
        "mountPathRegex": "/run/gcs/c/[0-9a-fA-F]{64}",
    }
    assert decisions.rw_unmount_device(container) == {"unmountTarget": directory}
    assert decisions.scratch_mount(container) == {"target": f"{directory}/scratch/{ID}", "encrypted": True}
    assert decisions.scratch_unmount(container) == {"unmountTarget": f"{directory}/scratch/{ID}"}
    assert decisions.mount_overlay(overlay) == {
        "containerID": ID,
        "layerPaths": [disk(3), disk(0)],
        "target": f"{directory}/rootfs",
    }
    assert decisions.unmount_overlay(container) == {"unmountTarget": f"{directory}/rootfs"}


PROCESS = pb.Process(
    args=["/app", "-v"],
    env=["A=1"],
    cwd="/work",
    user=pb.User(uid=1, gid=2, umask=0o27),
    capabilities=pb.Capabilities(
        bounding=["CAP_KILL"], effective=["CAP_BPF"], inheritable=["CAP_CHOWN"], permitted=[], ambient=["CAP_FOWNER"]
    ),
    no_new_privileges=True,
)
ASKED = {
    "containerID": ID,
    "argList": ["/app", "-v"],
    "envList": ["A=1"],
    "workingDir": "/work",
    "noNewPrivileges": True,
    "user": {"id": "1", "name": "me"},
    "groups": [{"id": "2", "name": "us"}, {"id": "3", "name": ""}],
    "umask": "0027",
    "capabilities": {
        "bounding": ["CAP_KILL"],
        "effective": ["CAP_BPF"],
        "inheritable": ["CAP_CHOWN"],
        "permitted": [],
        "ambient": ["CAP_FOWNER"],
    },
}
IDENTITY = Identity("me", ((2, "us"), (3, "")))


def test_the_policy_is_asked_about_everything_that_a_process_is_given() -> None:
    pod = ContainerId("cd" * 32)
    request = requests.create_container(
        pb.CreateContainerRequest(
            container_id=ID,
            process=PROCESS,
            mounts=[pb.Mount(destination="/data", type="tmpfs", source="shm", options=["ro", "nosuid"])],
            privileged=True,
            sandbox_container=True,
            seccomp=b'{"defaultAction":"SCMP_ACT_ALLOW"}',
        )
    )
    assert request.seccomp is not None
    assert decisions.create_container(request, IDENTITY, pod) == {
        **ASKED,
        "sandboxDir": f"/run/gcs/c/{pod}/sandboxMounts",
        "hugePagesDir": f"/run/gcs/c/{pod}/hugepages",
        "mounts": [{"destination": "/data", "source": "shm", "type": "tmpfs", "options": ["ro", "nosuid"]}],
        "devices": [],
        "privileged": True,
        "seccompProfileSHA256": request.seccomp.sha256(),
        "isSandboxContainer": True,
    }
    bare = requests.create_container(pb.CreateContainerRequest(container_id=ID, process=PROCESS))
    asked = decisions.create_container(bare, IDENTITY, pod)
    assert (asked["seccompProfileSHA256"], asked["privileged"], asked["isSandboxContainer"]) == ("", False, False)
    execution = pb.ExecProcessRequest(container_id=ID, exec_id="e", process=PROCESS)
    assert decisions.exec_in_container(requests.exec_process(execution), IDENTITY) == ASKED


def test_the_policy_is_asked_about_signals_and_the_end() -> None:
    for init in (True, False):
        assert decisions.signal_container_process(ContainerId(ID), 9, ("/app", "-v"), init=init) == {
            "containerID": ID,
            "signal": 9,
            "isInitProcess": init,
            "argList": ["/app", "-v"],
        }
    assert decisions.shutdown_container(ContainerId(ID)) == {"containerID": ID}


def test_the_policy_is_asked_about_what_a_signed_document_says() -> None:
    receipt = Receipt("ledger", ("a", "b"))
    fragment = LoadFragment(issuer="i", feed="f", header_svn=3, rego="package x", receipts=(receipt,))
    assert decisions.load_fragment(fragment) == {
        "issuer": "i",
        "feed": "f",
        "header_svn": 3,
        "rego": "package x",
        "receipts": [{"issuer": "ledger", "ttl_subjects": ["a", "b"]}],
    }
    listed = LoadTransparencyTrustList(issuer="i", subject="s", svn=2, ledgers=("l", "m"))
    assert decisions.load_trust_list(listed) == {"issuer": "i", "subject": "s", "svn": 2, "ledgers": ["l", "m"]}


def test_only_what_was_requested_may_stay_in_its_order() -> None:
    assert decisions.kept(["A=1", "B=2", "A=1"], None) == ("A=1", "B=2", "A=1")
    assert decisions.kept(["B=2", "C=3", "A=1"], ("A=1", "B=2", "D=4")) == ("B=2", "A=1")
    assert decisions.kept(["A=1"], ()) == ()
    requested = Capabilities(("a", "b"), ("c",), ("d",), ("e",), ("f",))
    assert decisions.kept_capabilities(requested, None) is requested
    allowed = Capabilities(("b", "x"), ("c",), (), ("e",), ("g",))
    assert decisions.kept_capabilities(requested, allowed) == Capabilities(("b",), ("c",), (), ("e",), ())


def test_a_verdict_says_what_the_decision_says() -> None:
    caps = model.Capabilities(("b",), ("e",), ("i",), ("p",), ("a",))
    full = Decision(
        allowed=True,
        point="create_container",
        env_list=("A=1",),
        caps=caps,
        allow_stdio_access=True,
        allowed_ledgers=("l",),
        attestation=frozenset({"/key/derive"}),
        identity=b"me",
    )
    assert decisions.verdict(full) == Verdict(
        allowed=True,
        env=("A=1",),
        capabilities=Capabilities(("b",), ("e",), ("i",), ("p",), ("a",)),
        stdio=True,
        ledgers=("l",),
        attestation=frozenset({"/key/derive"}),
        identity=b"me",
    )
    assert decisions.verdict(Decision(allowed=True, point="p")) == Verdict(allowed=True)
    assert decisions.verdict(Decision(allowed=True, point="p", env_list=())).env == ()
    reason = Reason("code", "no", "topic")
    assert decisions.verdict(Decision(allowed=True, point="p", reasons=(reason,))).message.startswith("p would be")
    refused = Decision(allowed=False, point="p", reasons=(reason,), env_list=("A=1",), caps=caps, identity=b"me")
    assert decisions.verdict(refused) == Verdict(allowed=False, message=refused.message())
    assert refused.message()


@pytest.mark.parametrize("permissive", [True, False])
def test_an_engine_says_whether_its_policy_denies_nothing(permissive: bool) -> None:
    engine = FrameworkEngine(text(container(), permissive=permissive).encode())
    assert engine.permissive is permissive
    assert not engine.records
    assert not engine.open_door


@pytest.mark.parametrize("engine", [FrameworkEngine(text(container()).encode()), OpenDoorEngine()])
def test_the_state_after_a_denial_is_that_from_before_the_request(engine: Engine) -> None:
    assert engine.after_denial("before", "asked", "after") == "before"
    assert engine.initial_state() == State.initial()


def test_the_open_door_lets_everything_through_and_has_nothing_to_attest() -> None:
    door = OpenDoorEngine()
    assert door.open_door
    assert not door.records
    assert not door.permissive
    assert not door.wants_endorsements()
    verdict, state = door.decide(door.initial_state(), "mount_device", decisions.mount_device(layer()))
    assert verdict.allowed
    assert state != door.initial_state()
    verdict, _ = door.decide(state, "get_properties", {})
    assert verdict.allowed


def test_the_digest_is_that_of_host_data() -> None:
    assert decisions.policy_digest(b"package policy") == hashlib.sha256(b"package policy").digest()
