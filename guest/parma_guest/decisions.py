# SPDX-License-Identifier: Apache-2.0
"""The adapter between the enforcer and the policy engine.

`Engine` is all that the enforcer knows of a policy: it is pure, and its state is an opaque value. Here the typed
requests become the input documents that policies are written against (names and shapes of the reference enforcer).
"""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any, Final, NamedTuple, Protocol

from parma_guest import paths
from parma_guest.requests import CreateContainer, ExecProcess, MountDevice, MountOverlay
from parma_guest.users import Identity
from parma_guest.values import Capabilities, ContainerId, LayerTarget, ProcessSpec
from parma_policy.attestation import ENDORSED

if TYPE_CHECKING:
    from parma_policy.requests import LoadFragment as FragmentRequest
    from parma_policy.requests import LoadTransparencyTrustList as TrustListRequest
    from parma_policy.signed.envelopes import OfferedTrustList
    from parma_policy.signed.ledgers import TrustedLedgers as Ledgers

Document = Mapping[str, object]


class Verdict(NamedTuple):
    """What the policy says; ``env`` and ``capabilities`` are None where everything requested may stay."""

    allowed: bool
    message: str = ""
    """Why not; with ``allowed``: why not, had the policy not been permissive."""
    env: tuple[str, ...] | None = None
    capabilities: Capabilities | None = None
    stdio: bool = False
    ledgers: tuple[str, ...] = ()
    attestation: frozenset[str] = frozenset()
    """What of attestation a created container may reach: names of `parma_policy.attestation`."""
    identity: bytes = b""
    """What its derived keys are bound to."""


class Engine(Protocol):
    """A loaded policy."""

    records: bool
    """Whether any answer, a denial included, may lead to another state."""

    open_door: bool
    """Whether there is no policy in truth: see `OpenDoorEngine`."""

    @property
    def permissive(self) -> bool:
        """Whether the policy says of itself that it denies nothing and records."""

    def initial_state(self) -> Any:
        """Nothing has been allowed yet."""

    def wants_endorsements(self) -> bool:
        """Whether the policy could let a container pass on what `parma_guest.attest.endorsements` has."""

    def decide(self, state: Any, point: str, request: Document) -> tuple[Verdict, Any]:
        """The verdict, and the state that holds if the request is carried out."""

    def after_denial(self, before: Any, asked: Any, after: Any) -> Any:
        """The state after a request that began in state ``before``, and that was denied when it was in ``asked``;
        ``after`` is what `decide` has led to then."""


class FrameworkEngine:
    """`Engine` over ``parma_policy``: the strict reader and the framework's decisions."""

    records = False
    open_door = False

    def __init__(self, policy: bytes) -> None:
        """Raises `Malformed` for bytes that are not a policy."""
        framework, reader = _policy_modules()
        self._framework = framework
        self._policy = reader.load(policy)

    @property
    def permissive(self) -> bool:
        """See `Engine`."""
        return bool(self._policy.extensions.permissive)

    def initial_state(self) -> Any:
        """See `Engine`."""
        return self._framework.State.initial()

    def wants_endorsements(self) -> bool:
        """See `Engine`. What a fragment brings is not known yet."""
        containers = self._policy.containers.containers
        return bool(self._policy.fragments) or any(
            container.may_reach(sandbox=False) & ENDORSED for container in containers
        )

    def decide(self, state: Any, point: str, request: Document) -> tuple[Verdict, Any]:
        """See `Engine`."""
        decision, after = self._framework.decide(self._policy, state, point, request)
        return verdict(decision), after

    def after_denial(self, before: Any, asked: Any, after: Any) -> Any:
        """See `Engine`: the framework records nothing when it denies."""
        del asked, after
        return before


class OpenDoorEngine:
    """`Engine` for the empty policy, which only a guest without a TEE takes (`parma_guest.enforcer`)."""

    records = False
    permissive = False
    open_door = True

    def __init__(self) -> None:
        framework, _ = _policy_modules()
        with _importing:
            from parma_policy.framework.open_door import OpenDoor

            self._door = OpenDoor()
        self._framework = framework

    def initial_state(self) -> Any:
        """See `Engine`."""
        return self._framework.State.initial()

    def wants_endorsements(self) -> bool:
        """See `Engine`: there is nothing to attest."""
        return False

    def decide(self, state: Any, point: str, request: Document) -> tuple[Verdict, Any]:
        """See `Engine`."""
        decision, after = self._door.decide(state, point, request)
        return verdict(decision), after

    def after_denial(self, before: Any, asked: Any, after: Any) -> Any:
        """See `Engine`."""
        del asked, after
        return before


def verdict(decision: Any) -> Verdict:
    """From the framework's `Decision`."""
    if not decision.allowed:
        return Verdict(allowed=False, message=decision.message())
    return Verdict(
        allowed=True,
        message=decision.message(),
        env=None if decision.env_list is None else tuple(decision.env_list),
        capabilities=_capabilities(decision.caps),
        stdio=bool(decision.allow_stdio_access),
        ledgers=decision.allowed_ledgers or (),
        attestation=decision.attestation,
        identity=decision.identity,
    )


def preload() -> None:
    """Imports what `FrameworkEngine` and the first report need. Run beside the server, while the host does its part."""
    from parma_snp import report  # noqa: F401

    _policy_modules()


_importing: Final = threading.Lock()


def _policy_modules() -> tuple[Any, Any]:
    """``framework`` and ``reader``, imported late: reading a policy needs more of Python than booting does.

    Under one lock of ours: two threads that import the same modules wait for each other module by module, and where
    Python sees a deadlock in that it lets one of them have a half imported module. No policy is ever read by one.
    """
    with _importing:
        from parma_policy import framework, reader

        return framework, reader


class SignedDocuments(NamedTuple):
    """The functions of ``parma_policy.signed``."""

    read_fragment: Callable[[bytes, Ledgers], FragmentRequest]
    read_trust_list: Callable[[bytes], OfferedTrustList]
    NO_LEDGERS: Ledgers


def signed_documents() -> SignedDocuments:
    """Imported late, as few groups have any: only this needs ``cryptography``. See `_policy_modules` for the lock."""
    with _importing:
        from parma_policy.signed import envelopes, ledgers

        return SignedDocuments(envelopes.read_fragment, envelopes.read_trust_list, ledgers.NO_LEDGERS)


def policy_digest(policy: bytes) -> bytes:
    """What HOST_DATA must be equal to."""
    return hashlib.sha256(policy).digest()


def kept(requested: Iterable[str], allowed: tuple[str, ...] | None) -> tuple[str, ...]:
    """The requested strings that may stay, in the request's order; never one that was not requested."""
    if allowed is None:
        return tuple(requested)
    return tuple(item for item in requested if item in frozenset(allowed))


def kept_capabilities(requested: Capabilities, allowed: Capabilities | None) -> Capabilities:
    """The requested capabilities that may stay, set by set."""
    if allowed is None:
        return requested
    return Capabilities(
        bounding=kept(requested.bounding, allowed.bounding),
        effective=kept(requested.effective, allowed.effective),
        inheritable=kept(requested.inheritable, allowed.inheritable),
        permitted=kept(requested.permitted, allowed.permitted),
        ambient=kept(requested.ambient, allowed.ambient),
    )


def configure_network() -> Document:
    """Input of ``configure_network``: it is about whether, not what."""
    return {}


def forward_port(port: int) -> Document:
    """Input of ``forward_port``."""
    return {"port": port}


def mount_device(request: MountDevice) -> Document:
    """Input of ``mount_device``."""
    return {
        "target": str(request.target),
        "deviceHash": str(request.root_hash),
        "mountPathRegex": paths.MOUNT_PATH_REGEX,
    }


def unmount_device(target: LayerTarget) -> Document:
    """Input of ``unmount_device``."""
    return {"unmountTarget": str(target)}


def rw_mount_device(container: ContainerId) -> Document:
    """Input of ``rw_mount_device``: the enforcer only ever makes encrypted ext4 scratch."""
    return {
        "target": paths.container_directory(container),
        "encrypted": True,
        "ensureFilesystem": True,
        "filesystem": "ext4",
        "mountPathRegex": paths.SCRATCH_PATH_REGEX,
    }


def rw_unmount_device(container: ContainerId) -> Document:
    """Input of ``rw_unmount_device``."""
    return {"unmountTarget": paths.container_directory(container)}


def scratch_mount(container: ContainerId) -> Document:
    """Input of ``scratch_mount``. Guest memory counts as encrypted: in a confidential VM it is."""
    return {"target": paths.scratch_directory(container), "encrypted": True}


def scratch_unmount(container: ContainerId) -> Document:
    """Input of ``scratch_unmount``."""
    return {"unmountTarget": paths.scratch_directory(container)}


def mount_overlay(request: MountOverlay) -> Document:
    """Input of ``mount_overlay``: layer paths with the top layer first."""
    return {
        "containerID": str(request.container),
        "layerPaths": [str(layer) for layer in request.layers],
        "target": paths.rootfs(request.container),
    }


def unmount_overlay(container: ContainerId) -> Document:
    """Input of ``unmount_overlay``."""
    return {"unmountTarget": paths.rootfs(container)}


def create_container(request: CreateContainer, identity: Identity, sandbox: ContainerId) -> Document:
    """Input of ``create_container``; ``sandbox`` is the container whose directory ``sandbox://`` stands for."""
    return {
        **_process(request.container, request.process, identity),
        "sandboxDir": paths.sandbox_mounts(sandbox),
        "hugePagesDir": paths.huge_pages(sandbox),
        "mounts": [
            {
                "destination": str(mount.destination),
                "source": mount.source,
                "type": mount.type,
                "options": list(mount.options),
            }
            for mount in request.mounts
        ],
        "devices": [],
        "privileged": request.privileged,
        "seccompProfileSHA256": request.seccomp.sha256() if request.seccomp else "",
        "isSandboxContainer": request.sandbox_container,
    }


def exec_in_container(request: ExecProcess, identity: Identity) -> Document:
    """Input of ``exec_in_container``."""
    return _process(request.container, request.process, identity)


def signal_container_process(container: ContainerId, signal: int, args: tuple[str, ...], *, init: bool) -> Document:
    """Input of ``signal_container_process``; ``args`` are those the process was started with."""
    return {"containerID": str(container), "signal": signal, "isInitProcess": init, "argList": list(args)}


def shutdown_container(container: ContainerId) -> Document:
    """Input of ``shutdown_container``."""
    return {"containerID": str(container)}


def load_fragment(request: FragmentRequest) -> Document:
    """Input of ``load_fragment``: what the verified envelope says."""
    return {
        "issuer": request.issuer,
        "feed": request.feed,
        "header_svn": request.header_svn,
        "rego": request.rego,
        "receipts": [
            {"issuer": receipt.issuer, "ttl_subjects": list(receipt.ttl_subjects)} for receipt in request.receipts
        ],
    }


def load_trust_list(request: TrustListRequest) -> Document:
    """Input of ``load_transparency_trust_list``."""
    return {
        "issuer": request.issuer,
        "subject": request.subject,
        "svn": request.svn,
        "ledgers": list(request.ledgers),
    }


def _process(container: ContainerId, process: ProcessSpec, identity: Identity) -> dict[str, object]:
    return {
        "containerID": str(container),
        "argList": list(process.args),
        "envList": list(process.env),
        "workingDir": str(process.cwd),
        "noNewPrivileges": process.no_new_privileges,
        "user": {"id": str(process.user.uid), "name": identity.user_name},
        "groups": [{"id": str(gid), "name": name} for gid, name in identity.groups],
        "umask": f"{process.user.umask:04o}",
        "capabilities": process.capabilities.as_document(),
    }


def _capabilities(found: Any) -> Capabilities | None:
    """From the framework's record of the same five fields."""
    if found is None:
        return None
    return Capabilities(
        bounding=tuple(found.bounding),
        effective=tuple(found.effective),
        inheritable=tuple(found.inheritable),
        permitted=tuple(found.permitted),
        ambient=tuple(found.ambient),
    )
