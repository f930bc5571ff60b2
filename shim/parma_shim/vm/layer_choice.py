# SPDX-License-Identifier: Apache-2.0
"""Where a container's layers come from: what containerd offers, where the policy lists it, else a conversion."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

from parma_shim.api import types_pb2
from parma_shim.config import Config
from parma_shim.vm.layers import LayerJob, LayerSource

_MIB: Final = 1 << 20


class LayerChoice:
    """For the containers of one containerd namespace."""

    def __init__(
        self,
        config: Config,
        *,
        grpc_address: str,
        namespace: str,
        log: Callable[[str], None],
        start_layers: Callable[..., LayerSource] = LayerJob,
    ) -> None:
        """``start_layers``: for tests."""
        self._config: Final = config
        self._grpc_address: Final = grpc_address
        self._namespace: Final = namespace
        self._log: Final = log
        self._start_layers: Final = start_layers

    def source(
        self,
        container_id: str,
        rootfs: Sequence[types_pb2.Mount],
        policy: bytes,
        *,
        deadline: float,
        on_failure: Callable[[], None],
    ) -> LayerSource:
        """The caller closes it. ``on_failure`` is called when it turns out that there will be no layers."""
        if any(mount.type == "erofs" for mount in rootfs):
            from parma_shim.vm.offered import offered_layers  # few snapshotters offer any

            offered = offered_layers(rootfs, policy, self._log)
            if offered is not None:
                return offered
        config = self._config
        request = {
            "address": self._grpc_address,
            "namespace": self._namespace,
            "container_id": container_id,
            "cache": str(config.data_dir / "layers"),
            "cache_bytes": config.layer_cache_mib * _MIB,
            "timeout": config.call_timeout,
        }
        return self._start_layers(config.python, request, deadline=deadline, on_failure=on_failure)
