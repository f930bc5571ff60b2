# SPDX-License-Identifier: Apache-2.0
"""Rows about layers and the policy: overlays, the window before a policy, sizes, fragments, texts that deceive."""

from __future__ import annotations

import hashlib
import itertools
import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from parma_guest import points
from parma_guest.tee import REPORT_BYTES
from parma_wire import guest_pb2 as pb
from parma_wire.errors import AlreadyExists, Denied, FailedPrecondition, Malformed, ParmaError, Unavailable, Unverified
from parma_wire.limits import MAX_DOCUMENT_BYTES, MAX_POLICY_BYTES, POLICY_CHUNK
from tests.cose.chains import NOW, Authority, authority, shared_authority
from tests.guest import test_documents as documents
from tests.guest import vm_harness as vm
from tests.hostile.wire import LAYERS, SERVICE, SLEEP, HostileHost, container, hostile_host
from ttrpc import TtrpcError

ID = "ab" * 32
METHODS = pb.DESCRIPTOR.services_by_name["Guest"].methods


@pytest.fixture
def host(tmp_path: Path) -> Iterator[HostileHost]:
    with hostile_host(tmp_path, container()) as host:
        yield host


@pytest.fixture
def fresh(tmp_path: Path) -> Iterator[HostileHost]:
    """Without a policy."""
    with hostile_host(tmp_path) as host:
        yield host


def test_R15_no_other_selection_or_order_of_layers_is_mounted(host: HostileHost) -> None:
    targets = [host.mount_layer(number, layer) for number, layer in enumerate(LAYERS)]
    targets.append(host.mount_layer(7, LAYERS[0]))  # the same layer again, elsewhere
    host.call("MountScratch", pb.MountScratchRequest(container_id=ID, memory_bytes=16 << 20))
    right = {(targets[2], targets[1], targets[0]), (targets[2], targets[1], targets[3])}
    tried = 0
    for count in range(5):
        for chosen in itertools.product(targets, repeat=count):
            if chosen in right:
                continue
            request = pb.MountOverlayRequest(container_id=ID, layer_targets=chosen)
            assert isinstance(host.answer("MountOverlay", request), Denied | Malformed), chosen
            tried += 1
    assert tried == 1 + 4 + 16 + 64 + 256 - 2
    assert not [mount for mount in host.rig.kernel.mounts if mount[2] == "overlay"]
    host.call("MountOverlay", pb.MountOverlayRequest(container_id=ID, layer_targets=sorted(right)[0]))


def test_R19_without_layers_there_is_no_root_and_a_disk_is_nobody_without_its_hash(host: HostileHost) -> None:
    host.call("MountScratch", pb.MountScratchRequest(container_id=ID, memory_bytes=16 << 20))
    assert isinstance(host.answer("MountOverlay", pb.MountOverlayRequest(container_id=ID)), Denied)
    for wrong in ("dd" * 32, LAYERS[0].replace("a", "b", 1)):
        request = pb.MountDeviceRequest(lun=0, target="/run/mounts/scsi/m0", device_hash=wrong, data_blocks=8)
        assert isinstance(host.answer("MountDevice", request), Denied)
    for empty in ("", "0" * 64, LAYERS[0].upper(), LAYERS[0][:-1]):
        request = pb.MountDeviceRequest(lun=0, target="/run/mounts/scsi/m0", device_hash=empty, data_blocks=8)
        assert isinstance(host.answer("MountDevice", request), Denied | Malformed)
    assert not host.rig.mapper.devices


def test_R20_each_request_has_its_points_before_it_can_be_served(host: HostileHost) -> None:
    assert {method.name for method in METHODS} | {"Stream", "Forward"} == set(points.TABLE)
    changing = {name for name, row in points.TABLE.items() if row.kind is points.Kind.CHANGE and not row.points}
    for name in changing:
        assert points.TABLE[name].reason, name


def request_of(name: str) -> object:
    """Well formed, as far as that goes without knowing what it is for."""
    examples = {
        "MountDevice": pb.MountDeviceRequest(lun=0, target="/run/mounts/scsi/m0", device_hash=LAYERS[0], data_blocks=8),
        "UnmountDevice": pb.UnmountDeviceRequest(target="/run/mounts/scsi/m0"),
        "MountScratch": pb.MountScratchRequest(container_id=ID, memory_bytes=16 << 20),
        "CreateContainer": pb.CreateContainerRequest(container_id=ID, process=vm.process(SLEEP)),
        "ExecProcess": pb.ExecProcessRequest(container_id=ID, exec_id="e", process=vm.process(SLEEP)),
        "SignalProcess": pb.SignalProcessRequest(container_id=ID, signal=9),
        "Evidence": pb.EvidenceRequest(nonce=bytes(64)),
        "PutDocument": pb.PutDocumentRequest(data=b"x"),
        "MountVolume": {"name": "v", "memory_bytes": 16 << 20},
        "CreateSandbox": {"sandbox_id": ID},
    }
    example = examples.get(name)
    kind = getattr(pb, f"{name}Request")
    if example is None:
        has_id = "container_id" in kind.DESCRIPTOR.fields_by_name
        return kind(container_id=ID) if has_id else kind()
    return kind(**example) if isinstance(example, dict) else example


def test_R40_no_request_is_allowed_by_default(tmp_path: Path) -> None:
    with hostile_host(tmp_path) as host:
        # A policy that hands nothing to the framework: each point is then in error.
        text = (
            'package policy\napi_version := "0.11.0"\nframework_version := "0.5.0"\ncontainers := []\nfragments := []\n'
        )
        host.set_policy(text.encode())
        for name, row in points.TABLE.items():
            if not row.points or name in {"Stream", "Forward"}:  # streams; see their own tests
                continue
            answer = host.answer(name, request_of(name))
            assert isinstance(answer, ParmaError), name
        for name in ("MountDevice", "MountScratch", "MountOverlay"):
            assert isinstance(host.answer(name, request_of(name)), Denied), name
        assert not host.rig.kernel.mounts


def test_R41_before_the_policy_nothing_is_done_and_after_it_no_other_is_taken(fresh: HostileHost) -> None:
    for method in METHODS:
        kind = points.TABLE[method.name].kind
        if kind in (points.Kind.CHANGE, points.Kind.READ):
            answer = fresh.answer(method.name, request_of(method.name))
            assert isinstance(answer, FailedPrecondition | Malformed), method.name
    assert not fresh.rig.kernel.mounts
    policy = vm.policy_text(container())
    fresh.set_policy(policy)
    for request in (pb.PutPolicyRequest(data=b"package policy"), pb.PutPolicyRequest(offset=len(policy), data=b"#")):
        assert isinstance(fresh.answer("PutPolicy", request), FailedPrecondition)
    for size in (0, 1, len(policy)):
        assert isinstance(fresh.answer("SetPolicy", pb.SetPolicyRequest(size=size)), FailedPrecondition)
    fresh.mount_layer(0, LAYERS[0])


class LyingProcessor:
    """A source of reports that fails in every way that one can."""

    name = "snp"

    def __init__(self, host_data: Callable[[], bytes | None]) -> None:
        self._host_data = host_data

    def report(self, report_data: bytes, vmpl: int = 0) -> bytes:
        del report_data, vmpl
        return bytes(REPORT_BYTES)

    def derived_key(self) -> bytes:
        raise Unavailable("none")

    def host_data(self) -> bytes | None:
        return self._host_data()


def raising(error: BaseException) -> Callable[[], bytes]:
    def fail() -> bytes:
        raise error

    return fail


POLICY = vm.policy_text(container())


@pytest.mark.parametrize(
    "host_data",
    [
        raising(Unavailable("no report")),
        raising(Unverified("not the one that was asked for")),
        raising(OSError(5, "Input/output error")),
        raising(ValueError("bug")),
        raising(MemoryError()),
        lambda: bytes(32),
        lambda: b"",
        lambda: hashlib.sha256(POLICY).digest()[:31],
        lambda: hashlib.sha256(POLICY + b"\n").digest(),
    ],
)
def test_R42_whatever_goes_wrong_with_the_report_no_policy_is_in_force(
    tmp_path: Path, host_data: Callable[[], bytes | None]
) -> None:
    with hostile_host(tmp_path, tee=LyingProcessor(host_data)) as host:
        with pytest.raises(ParmaError):
            host.set_policy(POLICY)
        assert not host.rig.enforcer.has_policy
        assert isinstance(host.answer("MountDevice", request_of("MountDevice")), FailedPrecondition)


def test_R43_sizes_and_nesting_are_limited_before_anything_is_made_of_them(fresh: HostileHost) -> None:
    piece = bytes(POLICY_CHUNK)
    assert isinstance(fresh.answer("PutPolicy", pb.PutPolicyRequest(offset=2**32 - 1, data=b"x")), Malformed)
    assert isinstance(fresh.answer("PutPolicy", pb.PutPolicyRequest(data=piece + b"x")), Malformed)
    assert isinstance(fresh.answer("PutPolicy", pb.PutPolicyRequest()), Malformed)
    offset = 0
    while offset + len(piece) <= MAX_POLICY_BYTES:
        fresh.call("PutPolicy", pb.PutPolicyRequest(offset=offset, data=piece))
        offset += len(piece)
    assert isinstance(fresh.answer("PutPolicy", pb.PutPolicyRequest(offset=offset, data=piece)), Malformed)
    assert isinstance(fresh.answer("SetPolicy", pb.SetPolicyRequest(size=offset)), Denied)  # NULs are no policy
    for text in (
        b"package policy\ncontainers := " + b"[" * 100_000,
        b"package policy\ncontainers := " + b'{"a":' * 50_000 + b"1" + b"}" * 50_000,
        b"package policy\n" + b"x := 1\n" * 100_000,
        b"package policy\nx := " + b"9" * 500_000,
        b'package policy\nx := "' + b"\\u0000" * 100_000 + b'"',
    ):
        began = time.monotonic()
        with pytest.raises(Denied):
            fresh.set_policy(text)
        assert time.monotonic() - began < 10
    fresh.set_policy(POLICY)


def text_of(package: str, extra: str = "", svn: int = 2) -> bytes:
    """A fragment's text with another package, or something added."""
    return documents.text(svn).replace(b"package fragment", package.encode()) + extra.encode()


def signed(text: bytes, by: Authority | None = None, **terms: object) -> bytes:
    from parma_cose.signing import Document, sign

    signer = (by or shared_authority()).signer
    issuer = documents.issuer(by or shared_authority())
    feed = str(terms.get("feed", documents.FEED))
    svn = terms.get("svn", 2)
    assert isinstance(svn, int)
    return sign(Document(text, issuer, feed, "application/unknown+rego", svn, NOW), signer)


@pytest.fixture
def delegating(tmp_path: Path) -> Iterator[HostileHost]:
    """Its policy has a rule for fragments of one issuer and feed, from SVN 2 on."""
    with hostile_host(tmp_path) as host:
        host.set_policy(documents.policy())
        yield host


def load(host: HostileHost, document: bytes, method: str = "LoadFragment") -> ParmaError | None:
    host.put_document(document)
    return host.answer(method, getattr(pb, f"{method}Request")(size=len(document)))


CODE = (
    ("package framework", ""),
    ("package policy", ""),
    ("package data.framework", ""),
    ("package fragment", 'mount_device := {"allowed": true}\n'),
    ("package fragment", "allow { true }\n"),
    ("package fragment", "import data.framework\nx := data.framework.mount_device\n"),
    ("package fragment", "containers := []\n"),
    ("package fragment", 'fragments := [{"issuer": "x"}]\nunknown := 1\n'),
    ("# package fragment\npackage framework", ""),
    ("package fragment # \rpackage framework", ""),
    ("\ufeffpackage fragment", ""),
)


def test_R44_a_fragment_is_data_and_only_what_the_policy_names(delegating: HostileHost) -> None:
    for package, extra in CODE:
        answer = load(delegating, signed(text_of(package, extra)))
        assert isinstance(answer, Denied | Malformed), (package, extra, answer)
    assert isinstance(delegating.answer("MountDevice", request_of("MountDevice")), Denied)
    assert isinstance(load(delegating, b"package fragment\n"), Malformed)
    assert isinstance(load(delegating, documents.fragment(), "LoadTrustList"), ParmaError)
    assert load(delegating, documents.fragment()) is None


def test_R44_issuer_feed_and_signature_are_checked_before_the_text_is_read(delegating: HostileHost) -> None:
    good = documents.fragment()
    nonsense = b"package fragment\n{{{ no policy\n"
    assert isinstance(load(delegating, signed(nonsense, authority())), Denied)  # about its issuer, not its text
    assert isinstance(load(delegating, signed(nonsense, feed="another")), Denied)
    for position in range(0, len(good), 97):
        broken = bytearray(good)
        broken[position] ^= 0x20
        assert isinstance(load(delegating, bytes(broken)), ParmaError), position
    assert isinstance(delegating.answer("MountDevice", mount_of(documents.LAYER)), Denied)


def mount_of(layer: str) -> pb.MountDeviceRequest:
    return pb.MountDeviceRequest(lun=0, target="/run/mounts/scsi/m0", device_hash=layer, data_blocks=8)


def test_R45_an_older_fragment_is_refused_whatever_was_loaded_before(delegating: HostileHost) -> None:
    for _ in range(2):
        answer = load(delegating, documents.fragment(1, layer="ee" * 32))
        assert isinstance(answer, Denied)
        assert "svn" in str(answer)
        assert isinstance(load(delegating, signed(text_of("package fragment", svn=1), svn=2)), Denied | Malformed)
        assert load(delegating, documents.fragment(2)) is None
    assert isinstance(delegating.answer("MountDevice", mount_of("ee" * 32)), Denied)
    assert delegating.answer("MountDevice", mount_of(documents.LAYER)) is None


def test_R45_documents_cannot_fill_the_guest(delegating: HostileHost) -> None:
    put = pb.PutDocumentRequest(offset=MAX_DOCUMENT_BYTES, data=b"x")
    assert isinstance(delegating.answer("PutDocument", put), Malformed)
    assert isinstance(delegating.answer("PutDocument", pb.PutDocumentRequest(offset=7, data=b"x")), Malformed)
    delegating.call("PutDocument", pb.PutDocumentRequest(offset=0, data=b"x"))
    assert isinstance(delegating.answer("LoadFragment", pb.LoadFragmentRequest(size=2**32 - 1)), Malformed)


DECEPTIONS = (
    b"\xef\xbb\xbfpackage policy\n",
    b"package policy\ncontainers := []\ncontainers := []\n",
    b'package policy\ncontainers := [{"command": ["a"], "command": ["b"]}]\n',
    b"package policy\nx := NaN\n",
    b"package policy\nx := 1e400\n",
    b'package policy\napi_version := "0.11.0\xff"\n',
    b'package policy\nx := "\\ud800"\n',
    "package policy\u2028allow := true\n".encode(),
    b"package policy\nmount_device := true\n",
    b'package policy\nmount_device := {"allowed": true}\n',
    b"package policy\nmount_device := data.framework.create_container\n",
    b"package policy\nimport data.evil\n",
    b"package policy\n# \rmount_device := true\n",
    b"package policy;mount_device := true",
    b"package framework\n",
)


def test_R48_texts_that_two_readers_would_read_differently_are_refused(fresh: HostileHost) -> None:
    for text in DECEPTIONS:
        with pytest.raises(Denied):
            fresh.set_policy(text)
    fresh.set_policy(POLICY)


def test_R49_no_expression_takes_longer_than_the_text_is_long(tmp_path: Path) -> None:
    rules = [
        {"pattern": pattern, "strategy": "re2", "required": False}
        for pattern in ("A=(a+)+$", "A=(a|a)*b", "A=(.*)*(.*)*(.*)*x", "A=(a?){100}a{100}")
    ]
    with hostile_host(tmp_path, container(env_rules=rules)) as host:
        host.make_rootfs(ID)
        began = time.monotonic()
        answer = host.answer("CreateContainer", host.creation(ID, env=["A=" + "a" * 100_000 + "!"]))
        assert isinstance(answer, Denied)
        assert time.monotonic() - began < 5


def test_R47_where_containers_of_the_policy_would_keep_different_things_nothing_is_created(tmp_path: Path) -> None:
    one = [{"pattern": "A=1", "strategy": "string", "required": False}]
    with hostile_host(tmp_path, container(env_rules=one), container(env_rules=one, allow_stdio_access=False)) as host:
        host.make_rootfs(ID)
        answer = host.answer("CreateContainer", host.creation(ID, env=["A=1"]))
        assert isinstance(answer, Denied)
        assert host.specs == {}


def test_R50_what_a_host_says_makes_no_policy_permissive(fresh: HostileHost) -> None:
    text = POLICY + b"permissive := false\n"
    fresh.set_policy(text)
    assert isinstance(fresh.answer("Recording", pb.RecordingRequest()), Denied | FailedPrecondition)
    assert isinstance(fresh.answer("MountDevice", mount_of("dd" * 32)), Denied)
    fields = {field.name for kind in pb.DESCRIPTOR.message_types_by_name.values() for field in kind.fields}
    assert not [name for name in fields if "permissive" in name or "debug" in name]


def test_R50_an_empty_policy_opens_no_door_where_a_processor_vouches_for_it(tmp_path: Path) -> None:
    with hostile_host(tmp_path, tee=LyingProcessor(lambda: hashlib.sha256(b"").digest())) as host:
        assert isinstance(host.answer("SetPolicy", pb.SetPolicyRequest(size=0)), ParmaError)
        assert isinstance(host.answer("MountDevice", mount_of(LAYERS[0])), FailedPrecondition)


def test_R16_a_policy_that_arrives_from_two_hosts_at_once_is_none_of_a_mixture(fresh: HostileHost) -> None:
    other = fresh.connect()
    try:
        fresh.call("PutPolicy", pb.PutPolicyRequest(data=POLICY[:100]))
        with pytest.raises(TtrpcError):  # the other host's beginning is out of order by now
            other.call(SERVICE, "PutPolicy", pb.PutPolicyRequest(data=POLICY[:100]), pb.PutPolicyResponse, timeout=30)
        fresh.call("PutPolicy", pb.PutPolicyRequest(offset=100, data=POLICY[100:]))
        fresh.call("SetPolicy", pb.SetPolicyRequest(size=len(POLICY)))
    finally:
        other.close()


def test_R17_no_step_of_a_containers_life_can_be_left_out_or_repeated(host: HostileHost) -> None:
    def steps() -> dict[str, object]:
        by_id = (
            "StartContainer",
            "DeleteContainer",
            "UnmountOverlay",
            "UnmountScratch",
            "PauseContainer",
            "ResumeContainer",
        )
        return {
            "MountScratch": pb.MountScratchRequest(container_id=ID, memory_bytes=16 << 20),
            "MountOverlay": pb.MountOverlayRequest(
                container_id=ID, layer_targets=[f"/run/mounts/scsi/m{number}" for number in (2, 1, 0)]
            ),
            "CreateContainer": host.creation(ID),
            "ExecProcess": request_of("ExecProcess"),
            "UnmountDevice": pb.UnmountDeviceRequest(target="/run/mounts/scsi/m0"),
            **{name: getattr(pb, f"{name}Request")(container_id=ID) for name in by_id},
        }

    for number, layer in enumerate(LAYERS):
        host.mount_layer(number, layer)
    order = ["MountScratch", "MountOverlay", "CreateContainer", "StartContainer"]
    for step in range(len(order) + 1):
        # ExecProcess is not in the policy, and pausing needs a cgroup: neither is a step.
        legal = {order[step]} if step < len(order) else set()
        if step == 1:
            legal |= {"UnmountScratch", "UnmountDevice"}
        if step == 2:
            legal |= {"UnmountOverlay"}
        if step == 3:
            legal |= {"DeleteContainer"}
        if step == 4:
            legal |= {"PauseContainer", "ResumeContainer"}
        if step == 0:
            legal |= {"UnmountDevice"}
        for name, request in steps().items():
            if name not in legal:
                assert isinstance(host.answer(name, request), ParmaError), (step, name)
        if step < len(order):
            host.call(order[step], steps()[order[step]])
    assert host.rig.enforcer.poisoned == ""


def test_R18_what_cannot_be_taken_away_ends_all_changes(host: HostileHost) -> None:
    host.make_rootfs(ID)
    host.rig.kernel.stuck.add(f"/run/gcs/c/{ID}/rootfs")
    assert isinstance(host.answer("UnmountOverlay", pb.UnmountOverlayRequest(container_id=ID)), Unavailable)
    for name in ("MountDevice", "MountScratch", "CreateContainer", "PutDocument", "UnmountDevice", "SignalProcess"):
        answer = host.answer(name, request_of(name))
        assert isinstance(answer, FailedPrecondition), name
        assert "no more changes" in str(answer)
    host.call("PowerOff", pb.PowerOffRequest())
    assert host.powered_off.wait(60)


def test_R18_a_step_that_fails_leaves_the_state_of_before(host: HostileHost) -> None:
    host.rig.kernel.broken.add("/run/mounts/scsi/m0")
    assert isinstance(host.answer("MountDevice", request_of("MountDevice")), Unavailable)
    assert not host.rig.mapper.devices
    host.rig.kernel.broken.clear()
    host.mount_layer(0, LAYERS[0])
    again = pb.MountDeviceRequest(lun=0, target="/run/mounts/scsi/m0", device_hash=LAYERS[0], data_blocks=8)
    assert isinstance(host.answer("MountDevice", again), Denied | AlreadyExists | FailedPrecondition)


def test_R26_scratch_without_encryption_does_not_exist(host: HostileHost) -> None:
    assert [field.name for field in pb.MountScratchRequest.DESCRIPTOR.fields] == ["container_id", "lun", "memory_bytes"]
    host.call("MountScratch", pb.MountScratchRequest(container_id=ID, lun=3))
    assert sorted(name.partition("-")[0] for name in host.rig.mapper.devices) == ["crypt", "integrity"]
    crypt = next(target for name, target in host.rig.mapper.devices.items() if name.startswith("crypt"))
    assert json.dumps(crypt).count("authenc(hmac(sha256),xts(aes))") == 1
