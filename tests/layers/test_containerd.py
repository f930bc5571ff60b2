# SPDX-License-Identifier: Apache-2.0
"""Finding layers through a containerd that is faked in this process, over a real gRPC socket."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
import pytest

from parma_policy.layers import containerd_api_pb2 as api
from parma_policy.layers.containerd import resolve_image_layers, resolve_layers
from parma_policy.layers.manifests import chain_id
from parma_wire.errors import (
    DeadlineExceeded,
    Denied,
    FailedPrecondition,
    NotFound,
    Unavailable,
    Unsupported,
    Unverified,
)

from .images import Store, digest_of, layer_tars, platform

NAMESPACE = "k8s.io"
IMAGE = "docker.io/library/test:latest"


@dataclass
class Fake:
    """Containerd's side. Tests change the fields."""

    root: Path
    store: Store = field(default_factory=Store)
    images: dict[str, dict[str, Any]] = field(default_factory=dict)
    containers: dict[str, api.Container] = field(default_factory=dict)
    parents: dict[tuple[str, str], str] = field(default_factory=dict)
    exports_root: bool = True
    denied: bool = False
    delay: float = 0.0
    address: str = ""

    def add_container(self, name: str, diff_ids: list[str], **fields: Any) -> None:
        settings = {"id": name, "image": IMAGE, "snapshotter": "overlayfs", "snapshot_key": name, **fields}
        self.containers[name] = api.Container(**settings)
        self.parents["overlayfs", name] = chain_id(diff_ids)

    def write_blobs(self) -> None:
        folder = self.root / "blobs" / "sha256"
        folder.mkdir(parents=True, exist_ok=True)
        for digest, data in self.store.blobs.items():
            (folder / digest.removeprefix("sha256:")).write_bytes(data)

    def _check(self, context: grpc.ServicerContext) -> None:
        time.sleep(self.delay)
        if self.denied:
            context.abort(grpc.StatusCode.PERMISSION_DENIED, "not for you")
        if ("containerd-namespace", NAMESPACE) not in context.invocation_metadata():
            context.abort(grpc.StatusCode.NOT_FOUND, "no such namespace")

    def get_container(self, request: Any, context: grpc.ServicerContext) -> Any:
        self._check(context)
        if request.id not in self.containers:
            context.abort(grpc.StatusCode.NOT_FOUND, "not found")
        return api.GetContainerResponse(container=self.containers[request.id])

    def get_image(self, request: Any, context: grpc.ServicerContext) -> Any:
        self._check(context)
        if request.name not in self.images:
            context.abort(grpc.StatusCode.NOT_FOUND, "not found")
        target = self.images[request.name]
        descriptor = api.Descriptor(media_type=target["mediaType"], digest=target["digest"], size=target["size"])
        return api.GetImageResponse(image=api.Image(name=request.name, target=descriptor))

    def stat(self, request: Any, context: grpc.ServicerContext) -> Any:
        self._check(context)
        parent = self.parents.get((request.snapshotter, request.key))
        if parent is None:
            context.abort(grpc.StatusCode.NOT_FOUND, "not found")
        return api.StatSnapshotResponse(info=api.SnapshotInfo(name=request.key, parent=parent or ""))

    def info(self, request: Any, context: grpc.ServicerContext) -> Any:
        self._check(context)
        if request.digest not in self.store.blobs:
            context.abort(grpc.StatusCode.NOT_FOUND, "not found")
        size = len(self.store.blobs[request.digest])
        return api.ContentInfoResponse(info=api.ContentInfo(digest=request.digest, size=size))

    def read(self, request: Any, context: grpc.ServicerContext) -> Iterator[Any]:
        self._check(context)
        if request.digest not in self.store.blobs:
            context.abort(grpc.StatusCode.NOT_FOUND, "not found")
        data = self.store.blobs[request.digest]
        for start in range(0, len(data), 1000):
            yield api.ReadContentResponse(offset=start, data=data[start : start + 1000])

    def plugins(self, request: Any, context: grpc.ServicerContext) -> Any:
        self._check(context)
        assert list(request.filters) == ["type==io.containerd.content.v1"]
        exports = {"root": str(self.root)} if self.exports_root else {}
        return api.PluginsResponse(plugins=[api.Plugin(type="io.containerd.content.v1", id="content", exports=exports)])


def unary(function: Any, request: Any) -> Any:
    return grpc.unary_unary_rpc_method_handler(
        function, request_deserializer=request.FromString, response_serializer=lambda m: m.SerializeToString()
    )


@pytest.fixture
def fake(tmp_path: Path) -> Iterator[Fake]:
    served = Fake(tmp_path / "content", address=str(tmp_path / "containerd.sock"))
    services = {
        "containers.v1.Containers": {"Get": unary(served.get_container, api.GetContainerRequest)},
        "images.v1.Images": {"Get": unary(served.get_image, api.GetImageRequest)},
        "snapshots.v1.Snapshots": {"Stat": unary(served.stat, api.StatSnapshotRequest)},
        "introspection.v1.Introspection": {"Plugins": unary(served.plugins, api.PluginsRequest)},
        "content.v1.Content": {
            "Info": unary(served.info, api.ContentInfoRequest),
            "Read": grpc.unary_stream_rpc_method_handler(
                served.read,
                request_deserializer=api.ReadContentRequest.FromString,
                response_serializer=lambda m: m.SerializeToString(),
            ),
        },
    }
    server = grpc.server(ThreadPoolExecutor(4))
    for name, methods in services.items():
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(f"containerd.services.{name}", methods),))
    server.add_insecure_port(f"unix://{served.address}")
    server.start()
    yield served
    server.stop(None).wait()


def resolve(fake: Fake, name: str = "c1", timeout: float = 10) -> list[Any]:
    return resolve_layers(fake.address, NAMESPACE, name, timeout=timeout)


def simple(fake: Fake, **options: Any) -> list[bytes]:
    """One image in the store and a container made from it."""
    layers = layer_tars(3)
    fake.images[IMAGE] = fake.store.image(layers, **options)
    fake.add_container("c1", [digest_of(layer) for layer in layers])
    fake.write_blobs()
    return layers


def contents(blobs: list[Any]) -> list[bytes]:
    out = []
    for blob in blobs:
        with blob.open() as stream:
            out.append(stream.read())
    return out


@pytest.mark.parametrize("options", [{}, {"docker": True}, {"compressed": False}], ids=["OCI", "Docker", "plain"])
def test_layers_are_found_as_files_base_first(fake: Fake, options: dict[str, bool]) -> None:
    layers = simple(fake, **options)
    found = resolve(fake)
    assert [blob.diff_id for blob in found] == [digest_of(layer) for layer in layers]
    assert all(blob.path is not None and blob.path.is_relative_to(fake.root) for blob in found)
    assert contents(found) == layers


def test_blobs_come_through_the_api_where_files_are_out_of_reach(fake: Fake) -> None:
    layers = simple(fake)
    fake.exports_root = False
    found = resolve(fake)
    assert [blob.path for blob in found] == [None] * 3
    assert contents(found) == layers


def test_a_file_of_the_wrong_size_is_not_used(fake: Fake) -> None:
    layers = simple(fake)
    damaged = resolve(fake)[1].path
    damaged.write_bytes(b"short")
    found = resolve(fake)
    assert [blob.path is None for blob in found] == [False, True, False]
    assert contents(found) == layers


@pytest.mark.parametrize("docker", [True, False])
def test_the_platform_is_chosen_from_an_index(fake: Fake, docker: bool) -> None:
    layers = layer_tars(2)
    arm = fake.store.image(layer_tars(1, "arm"), architecture="arm64", docker=docker, platform=platform("arm64"))
    amd = fake.store.image(layers, docker=docker, platform=platform("amd64"))
    attestation = fake.store.image([], platform=platform("unknown", "unknown"))
    fake.images[IMAGE] = fake.store.index(arm, attestation, amd, docker=docker)
    fake.add_container("c1", [digest_of(layer) for layer in layers])
    assert contents(resolve(fake)) == layers
    config, found = resolve_image_layers(fake.address, NAMESPACE, IMAGE, timeout=10)
    assert config["config"] == {"Cmd": ["sh"]}
    assert contents(found) == layers


def test_of_several_variants_the_one_that_was_unpacked_is_taken(fake: Fake) -> None:
    layers = layer_tars(2)
    other = fake.store.image(layer_tars(2, "v2"), platform={**platform("amd64"), "variant": "v2"})
    gone = fake.store.image(layer_tars(2, "v3"), platform={**platform("amd64"), "variant": "v3"})
    fake.images[IMAGE] = fake.store.index(gone, other, fake.store.image(layers))
    del fake.store.blobs[gone["digest"]]
    fake.add_container("c1", [digest_of(layer) for layer in layers])
    assert contents(resolve(fake)) == layers


def test_the_image_name_may_be_in_cri_annotations(fake: Fake) -> None:
    layers = simple(fake)
    spec = json.dumps({"annotations": {"io.kubernetes.cri.image-name": IMAGE}}).encode()
    fake.add_container("c1", [digest_of(layer) for layer in layers], image="")
    fake.containers["c1"].spec.value = spec
    assert contents(resolve(fake)) == layers


@pytest.mark.parametrize("fields", [{"image": ""}, {"snapshot_key": ""}])
def test_a_container_without_image_is_refused_with_a_hint(fake: Fake, fields: dict[str, str]) -> None:
    simple(fake)
    fake.add_container("bare", [], **fields)
    with pytest.raises(FailedPrecondition, match="--rootfs"):
        resolve(fake, "bare")


def test_a_root_file_system_of_another_image_is_refused(fake: Fake) -> None:
    simple(fake)
    fake.add_container("c1", [digest_of(b"other")])
    with pytest.raises(FailedPrecondition, match="not made from image"):
        resolve(fake)


def test_what_is_missing_is_named(fake: Fake) -> None:
    layers = simple(fake)
    with pytest.raises(NotFound, match="'none'"):
        resolve(fake, "none")
    manifest = fake.images[IMAGE]["digest"]
    blob = resolve(fake)[1]
    saved = fake.store.blobs.pop(blob.digest)
    with pytest.raises(NotFound, match=blob.digest) as error:
        resolve(fake)
    assert "discard_unpacked_layers" in str(error.value)
    fake.store.blobs[blob.digest] = saved
    del fake.store.blobs[manifest]
    with pytest.raises(NotFound, match=manifest):
        resolve(fake)
    del fake.images[IMAGE]
    with pytest.raises(NotFound, match=IMAGE):
        resolve(fake)
    fake.parents.clear()
    with pytest.raises(NotFound, match="snapshot"):
        resolve(fake)
    assert layers


def remapped(fake: Fake, spec: bytes) -> None:
    """A container whose client has put a snapshot with other owners between it and the image."""
    simple(fake)
    fake.containers["c1"].spec.value = spec
    parent = fake.parents["overlayfs", "c1"]
    fake.parents["overlayfs", "c1"] = f"{parent}-1000-2000"
    fake.parents["overlayfs", f"{parent}-1000-2000"] = parent


def test_layers_below_a_snapshot_with_mapped_owners_are_found(fake: Fake) -> None:
    remapped(fake, b'{"linux":{"uidMappings":[{"hostID":1000,"size":65535}]}}')
    assert len(resolve(fake)) > 1


@pytest.mark.parametrize("spec", [b"{}", b"nonsense", b'{"linux":{"uidMappings":[]}}'])
def test_a_snapshot_in_between_is_refused_without_a_user_namespace(fake: Fake, spec: bytes) -> None:
    remapped(fake, spec)
    with pytest.raises(FailedPrecondition, match="was not made from image"):
        resolve(fake)


def test_an_image_for_another_platform_is_named_as_such(fake: Fake) -> None:
    simple(fake, architecture="arm64")
    with pytest.raises(NotFound, match="linux/amd64"):
        resolve(fake)


@pytest.mark.parametrize(
    "layer_type", ["application/vnd.oci.image.layer.v1.tar+gzip+encrypted", "application/vnd.wasm.content.layer.v1"]
)
def test_layers_that_are_no_plain_tars_are_refused(fake: Fake, layer_type: str) -> None:
    simple(fake, layer_type=layer_type)
    with pytest.raises(Unsupported):
        resolve(fake)


def test_a_manifest_that_is_not_what_its_digest_says(fake: Fake) -> None:
    simple(fake)
    fake.store.blobs[fake.images[IMAGE]["digest"]] += b" "
    with pytest.raises(Unverified):
        resolve(fake)


def test_indexes_that_name_themselves_end(fake: Fake) -> None:
    inner = fake.store.image(layer_tars(1))
    for _ in range(6):
        inner = fake.store.index(inner)
    fake.images[IMAGE] = inner
    with pytest.raises(Exception, match="too deeply"):
        resolve_image_layers(fake.address, NAMESPACE, IMAGE, timeout=10)


def test_containerd_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(Unavailable, match="sock"):
        resolve_layers(str(tmp_path / "none.sock"), NAMESPACE, "c", timeout=5)


def test_containerd_that_does_not_answer(fake: Fake) -> None:
    fake.delay = 0.5
    with pytest.raises(DeadlineExceeded):
        resolve(fake, timeout=0.1)


def test_containerd_that_refuses(fake: Fake) -> None:
    fake.denied = True
    with pytest.raises(Denied):
        resolve(fake)


def test_a_blob_that_vanishes_while_it_is_read_through_the_api(fake: Fake) -> None:
    simple(fake)
    fake.exports_root = False
    found = resolve(fake)
    fake.store.blobs.clear()
    with pytest.raises(NotFound):
        found[0].open()


def test_chain_ids() -> None:
    one, two = "sha256:" + "1" * 64, "sha256:" + "2" * 64
    assert chain_id([]) == ""
    assert chain_id([one]) == one
    assert chain_id([one, two]) == digest_of(f"{one} {two}".encode())
    assert chain_id([one, two, one]) == digest_of(f"{chain_id([one, two])} {one}".encode())
