# SPDX-License-Identifier: Apache-2.0
"""Gives a guest what its containers pass on to relying parties: the processor's certificates, the image's endorsement.

Asked for by policies only. It is found while the layers are mounted; the first container waits for it. A host that
has none says so in its log: containers then find empty files, as they do where a cloud has none.
"""

from __future__ import annotations

import base64
import os
import threading
import time
from collections.abc import Callable
from typing import Any, Final

from parma_shim.config import Config
from parma_shim.guest import NONCE_SIZE
from parma_shim.helpers.call import Helper
from parma_shim.vm.session import Session

_HELPER_SECONDS: Final = 60.0


class Endorsing:
    """One delivery, on a thread of its own."""

    def __init__(
        self,
        config: Config,
        session: Session,
        *,
        log: Callable[[str], None],
        start_helper: Callable[..., Helper] = Helper,
    ) -> None:
        self._config: Final = config
        self._session: Final = session
        self._log: Final = log
        self._start_helper: Final = start_helper
        self._thread: Final = threading.Thread(target=self._run, name="endorse", daemon=True)
        self._thread.start()

    def wait(self, deadline: float) -> None:
        """Until it is delivered, or cannot be; at most until ``deadline``."""
        self._thread.join(max(0.0, deadline - time.monotonic()))

    def _run(self) -> None:
        try:
            answer = self._find()
            for line in answer["log"]:
                self._log(str(line))
            cert, reference_info = (base64.b64decode(answer[key]) for key in ("host_amd_cert", "reference_info"))
            self._session.guest.put_endorsements(cert, reference_info)
        except Exception as error:  # noqa: BLE001  # containers run without
            if self._session.machine.alive:
                self._log(f"containers get no endorsements to pass on: {error}")

    def _find(self) -> dict[str, Any]:
        """The certificates have to fit a report."""
        config = self._config
        report = self._session.guest.evidence(os.urandom(NONCE_SIZE))
        request = {
            "tee": config.tee,
            "report": base64.b64encode(report).decode(),
            "certificates": str(config.certificates or ""),
            "authority": str(config.data_dir / "emulated"),
            "image_dir": str(config.image_dir),
        }
        helper = self._start_helper(config.python, "endorse")
        return helper.exchange(request, deadline=time.monotonic() + _HELPER_SECONDS)
