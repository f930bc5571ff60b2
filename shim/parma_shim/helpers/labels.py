# SPDX-License-Identifier: Apache-2.0
"""Labels of containers through containerd's API. grpcio is imported with this, so only helpers may import it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import TracebackType
from typing import Final

import grpc
from google.protobuf.field_mask_pb2 import FieldMask

from parma_shim.api import containers_pb2 as pb

PREFIX: Final = "io.parma."
ATTESTATION: Final = PREFIX + "attestation"
VERIFIED_AT: Final = PREFIX + "verified-at"

_SERVICE: Final = "/containerd.services.containers.v1.Containers/"
_RECONNECT_MS: Final = 1000


class Labels:
    """Of the containers of a namespace."""

    def __init__(self, address: str, namespace: str) -> None:
        """``address`` is the path of containerd's socket, with or without ``unix://``."""
        options = [("grpc.max_reconnect_backoff_ms", _RECONNECT_MS)]
        self._channel: Final = grpc.insecure_channel("unix://" + address.removeprefix("unix://"), options=options)
        self._metadata: Final = (("containerd-namespace", namespace),)
        self._get: Final = self._channel.unary_unary(
            _SERVICE + "Get",
            request_serializer=pb.GetContainerRequest.SerializeToString,
            response_deserializer=pb.GetContainerResponse.FromString,
        )
        self._update: Final = self._channel.unary_unary(
            _SERVICE + "Update",
            request_serializer=pb.UpdateContainerRequest.SerializeToString,
            response_deserializer=pb.UpdateContainerResponse.FromString,
        )

    def __enter__(self) -> Labels:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._channel.close()

    def set(
        self,
        container_id: str,
        wanted: Mapping[str, str],
        *,
        timeout: float,
        patient: bool = False,
        unless: Callable[[pb.Container], bool] | None = None,
    ) -> list[str]:
        """Set labels of a container; returns what went wrong, a line, or nothing. One that is gone is no failure.

        Only the labels named in the mask are touched, so nobody else's change is lost.

        Args:
            timeout: seconds for each request.
            patient: spend them on a containerd that cannot be reached.
            unless: says of the container that it is to be left as it is.
        """
        mask = FieldMask(paths=[f"labels.{key}" for key in wanted])
        message = pb.UpdateContainerRequest(container=pb.Container(id=container_id, labels=wanted), update_mask=mask)
        try:
            if unless is not None:
                asked = pb.GetContainerRequest(id=container_id)
                found = self._get(asked, timeout=timeout, metadata=self._metadata, wait_for_ready=patient)
                if unless(found.container):
                    return []
            self._update(message, timeout=timeout, metadata=self._metadata, wait_for_ready=patient)
        except grpc.RpcError as error:
            if error.code() != grpc.StatusCode.NOT_FOUND:  # deleted meanwhile
                return [f"cannot label container {container_id}: {error.details()}"]
        return []
