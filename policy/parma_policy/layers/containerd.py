# SPDX-License-Identifier: Apache-2.0
"""Finding an image's layers through containerd's gRPC API, whatever the snapshotter.

Container -> image -> index -> manifest -> blobs in the content store. What containerd answers is not trusted: digests
are checked where blobs are read, and diffIDs where layers are converted.
"""

from __future__ import annotations

import io
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, Final, TypeVar, cast

from google.protobuf.message import Message

from parma_policy.layers import containerd_api_pb2 as api
from parma_policy.layers import manifests
from parma_policy.layers.blobs import LayerBlob
from parma_policy.layers.manifests import Descriptor, Document, ImageManifest
from parma_wire.errors import (
    DeadlineExceeded,
    Denied,
    FailedPrecondition,
    Malformed,
    NotFound,
    ParmaError,
    Unavailable,
)

if TYPE_CHECKING:
    import grpc

_SERVICES: Final = "/containerd.services."
_CONTENT_PLUGIN: Final = "io.containerd.content.v1"
_CRI_IMAGE: Final = "io.kubernetes.cri.image-name"
_MAX_MESSAGE: Final = 16 << 20
_READ_TIMEOUT: Final = 600.0

Response = TypeVar("Response", bound=Message)


class NoSuchImage(NotFound):
    """containerd's store has no image of this name."""


def resolve_layers(grpc_address: str, namespace: str, container_id: str, *, timeout: float) -> list[LayerBlob]:
    """The layers of a container's image, base layer first.

    ``grpc_address`` is containerd's socket, ``timeout`` is for all calls together, in seconds. Raises
    FailedPrecondition for a container without an image (``ctr run --rootfs``) or one whose root file system is not
    that of its image, NotFound for missing containers, images and blobs, Unsupported for image formats, Unavailable
    and DeadlineExceeded for containerd.
    """
    with _connected(grpc_address, namespace, timeout) as containerd:
        container = containerd.container(container_id)
        name = container.image or _cri_image(container)
        if not name or not container.snapshot_key:
            raise FailedPrecondition(
                f"container {container_id!r} has no image, so there are no layers that a policy could allow",
                hint="run an image from containerd's store, not --rootfs",
            )
        below = {containerd.snapshot_parent(container.snapshotter, container.snapshot_key)}
        if _has_user_namespace(container):
            # A client has put a snapshot in between, with the owners changed as the mappings say. The guest makes them
            # what they are to be from the layers themselves.
            below.update(containerd.snapshot_parent(container.snapshotter, parent) for parent in tuple(below) if parent)
        for image in manifests.images(containerd.image(name), containerd.read):
            if manifests.chain_id(image.diff_ids) in below:
                return containerd.blobs(image, name)
        raise FailedPrecondition(
            f"the root file system of container {container_id!r} was not made from image {name!r} as it is now",
            hint="was the image pulled again since? Create the container anew",
        )


def resolve_image_layers(
    grpc_address: str, namespace: str, image_name: str, *, timeout: float
) -> tuple[Document, list[LayerBlob]]:
    """The configuration and the layers (base first) of an image in containerd's store. Errors as above."""
    config, layers, _ = resolve_image(grpc_address, namespace, image_name, timeout=timeout)
    return config, layers


def resolve_image(
    grpc_address: str, namespace: str, image_name: str, *, timeout: float
) -> tuple[Document, list[LayerBlob], tuple[str, ...]]:
    """As ``resolve_image_layers``, and the digests of what the name points to and of the manifest."""
    with _connected(grpc_address, namespace, timeout) as containerd:
        target = containerd.image(image_name)
        image = next(manifests.images(target, containerd.read))
        return image.config, containerd.blobs(image, image_name), (target.digest, image.digest)


def _cri_image(container: api.Container) -> str:
    """The image's name in the OCI spec's annotations: CRI leaves the field of the container empty at times."""
    try:
        return str(_spec(container)["annotations"][_CRI_IMAGE])
    except (Malformed, LookupError, TypeError):
        return ""


def _has_user_namespace(container: api.Container) -> bool:
    try:
        return bool(_spec(container)["linux"]["uidMappings"])
    except (Malformed, LookupError, TypeError):
        return False


def _spec(container: api.Container) -> Document:
    return manifests.parse(container.spec.value, "the container's spec")


@contextmanager
def _connected(address: str, namespace: str, timeout: float) -> Iterator[_Containerd]:
    import grpc

    target = address if "://" in address else f"unix://{address}"
    options = [("grpc.max_receive_message_length", _MAX_MESSAGE), ("grpc.enable_http_proxy", 0)]
    with grpc.insecure_channel(target, options=options) as channel:
        yield _Containerd(channel, address, namespace, timeout)


class _Containerd:
    """The calls, all within one deadline."""

    def __init__(self, channel: grpc.Channel, address: str, namespace: str, timeout: float) -> None:
        self._channel = channel
        self._address = address
        self._namespace = namespace
        self._deadline = time.monotonic() + timeout
        self._content_root: Path | None = None
        self._asked_for_root = False

    def container(self, container_id: str) -> api.Container:
        what = f"container {container_id!r}"
        request = api.GetContainerRequest(id=container_id)
        return self._call("containers.v1.Containers/Get", request, api.GetContainerResponse, what).container

    def image(self, name: str) -> Descriptor:
        """What an image's name points to."""
        what = f"image {name!r}"
        try:
            response = self._call("images.v1.Images/Get", api.GetImageRequest(name=name), api.GetImageResponse, what)
        except NotFound as error:
            raise NoSuchImage(error.message) from None
        target = response.image.target
        return Descriptor(target.media_type, manifests.check_digest(target.digest), target.size)

    def snapshot_parent(self, snapshotter: str, key: str) -> str:
        """The chain ID of the layers below a container's writable snapshot."""
        what = f"snapshot {key!r} of snapshotter {snapshotter!r}"
        request = api.StatSnapshotRequest(snapshotter=snapshotter, key=key)
        return self._call("snapshots.v1.Snapshots/Stat", request, api.StatSnapshotResponse, what).info.parent

    def blobs(self, image: ImageManifest, name: str) -> list[LayerBlob]:
        """The layers of an image, all of which must be in the content store."""
        pairs = zip(image.layers, image.diff_ids, strict=True)
        return [self._blob(layer, diff_id, name) for layer, diff_id in pairs]

    def _blob(self, layer: Descriptor, diff_id: str, name: str) -> LayerBlob:
        request = api.ContentInfoRequest(digest=layer.digest)
        what = f"blob {layer.digest}"
        try:
            info = self._call("content.v1.Content/Info", request, api.ContentInfoResponse, what).info
        except NotFound:
            raise _gone(layer.digest, f"layer {layer.digest} of image {name!r}") from None
        path = self._file(layer.digest, info.size)
        opener = None
        if path is None:
            opener = partial(_open_remote, self._address, self._namespace, layer.digest)
        return LayerBlob(diff_id, layer.digest, layer.media_type, path, info.size, opener=opener)

    def read(self, target: Descriptor) -> bytes:
        """A small blob's bytes."""
        received = bytearray()
        try:
            for piece in self.stream(target.digest):
                received += piece
                if len(received) > manifests.MAX_DOCUMENT:
                    raise Malformed(f"blob {target.digest} is too large for an image's manifest or configuration")
        except NotFound:
            raise _gone(target.digest, f"blob {target.digest} of the image") from None
        return bytes(received)

    def stream(self, digest: str) -> Iterator[bytes]:
        """A blob's bytes through the API."""
        import grpc

        method = self._channel.unary_stream(
            _SERVICES + "content.v1.Content/Read",
            request_serializer=api.ReadContentRequest.SerializeToString,
            response_deserializer=api.ReadContentResponse.FromString,
        )
        try:
            answers = method(api.ReadContentRequest(digest=digest), **self._call_options())
            for answer in answers:
                yield answer.data
        except grpc.RpcError as error:
            raise self._translated(error, f"blob {digest}") from None

    def _file(self, digest: str, size: int) -> Path | None:
        """The blob's file, where the content store is a local directory that we may read."""
        if not self._asked_for_root:
            self._asked_for_root = True
            self._content_root = self._find_content_root()
        if self._content_root is None:
            return None
        path = self._content_root / "blobs" / "sha256" / digest.removeprefix("sha256:")
        try:
            with path.open("rb") as file:
                return path if file.seek(0, io.SEEK_END) == size else None
        except OSError:
            return None

    def _find_content_root(self) -> Path | None:
        request = api.PluginsRequest(filters=[f"type=={_CONTENT_PLUGIN}"])
        try:
            response = self._call("introspection.v1.Introspection/Plugins", request, api.PluginsResponse, "plugins")
        except ParmaError:
            return None  # the API serves the blobs as well
        for plugin in response.plugins:
            root = plugin.exports.get("root", "")
            if plugin.type == _CONTENT_PLUGIN and root:
                return Path(root)
        return None

    def _call(self, method: str, request: Message, response: type[Response], what: str) -> Response:
        import grpc

        call = self._channel.unary_unary(
            _SERVICES + method,
            request_serializer=type(request).SerializeToString,
            response_deserializer=response.FromString,
        )
        try:
            return call(request, **self._call_options())
        except grpc.RpcError as error:
            raise self._translated(error, what) from None

    def _call_options(self) -> dict[str, Any]:
        remaining = max(0.0, self._deadline - time.monotonic())
        return {"timeout": remaining, "metadata": (("containerd-namespace", self._namespace),)}

    def _translated(self, error: grpc.RpcError, what: str) -> ParmaError:
        import grpc

        code = error.code() if isinstance(error, grpc.Call) else grpc.StatusCode.UNKNOWN
        details = (error.details() if isinstance(error, grpc.Call) else None) or str(code)
        match code:
            case grpc.StatusCode.NOT_FOUND:
                return NotFound(f"containerd has no {what} in namespace {self._namespace!r}")
            case grpc.StatusCode.DEADLINE_EXCEEDED:
                return DeadlineExceeded(f"containerd at {self._address} did not answer in time for {what}")
            case grpc.StatusCode.PERMISSION_DENIED:
                return Denied(f"containerd at {self._address} does not give out {what}: {details}")
            case _:
                return Unavailable(f"containerd at {self._address} failed for {what}: {details}")


def _gone(digest: str, what: str) -> NotFound:
    return NotFound(
        f"{what} is not in containerd's content store",
        hint=f"pull the image again (ctr content ls lacks {digest}); CRI's discard_unpacked_layers must be off",
    )


class _RemoteBlob(io.RawIOBase):
    """A blob read through Content.Read."""

    def __init__(self, address: str, namespace: str, digest: str) -> None:
        super().__init__()
        self._connection = _connected(address, namespace, _READ_TIMEOUT)
        self._pieces = self._connection.__enter__().stream(digest)
        self._rest = b""

    def readable(self) -> bool:
        return True

    def read(self, size: int | None = -1, /) -> bytes:
        if size is None or size < 0:
            size = _MAX_MESSAGE
        while not self._rest:
            piece = next(self._pieces, None)
            if piece is None:
                return b""
            self._rest = piece
        data, self._rest = self._rest[:size], self._rest[size:]
        return data

    def close(self) -> None:
        if not self.closed:
            self._connection.__exit__(None, None, None)
        super().close()


def _open_remote(address: str, namespace: str, digest: str) -> BinaryIO:
    return cast("BinaryIO", _RemoteBlob(address, namespace, digest))
