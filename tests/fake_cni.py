# SPDX-License-Identifier: Apache-2.0
"""A CNI plugin that makes no network: it says that a pod has an address, and nothing else is so.

For what is asked of containerd's CRI plugin without any traffic. It wants a network of every pod, and real plugins
would change the machine's.
"""

from __future__ import annotations

import json
from pathlib import Path

_PLUGIN = """\
#!/bin/sh
# A fake: see tests/fake_cni.py
case "$CNI_COMMAND" in
VERSION) echo '{"cniVersion": "1.0.0", "supportedVersions": ["0.3.1", "0.4.0", "1.0.0"]}' ;;
ADD) cat > /dev/null; echo '{"cniVersion": "1.0.0",
  "interfaces": [{"name": "'"$CNI_IFNAME"'", "sandbox": "'"$CNI_NETNS"'"}],
  "ips": [{"address": "192.0.2.7/24", "interface": 0}]}' ;;
*) cat > /dev/null ;;
esac
"""


def write(conf_dir: Path, bin_dir: Path) -> None:
    """Into ``conf_dir`` and ``bin_dir`` of a containerd's configuration."""
    conf_dir.mkdir(parents=True, exist_ok=True)
    bin_dir.mkdir(parents=True, exist_ok=True)
    for name in ("fake", "loopback"):
        (bin_dir / name).write_text(_PLUGIN)
        (bin_dir / name).chmod(0o755)
    network = {"cniVersion": "1.0.0", "name": "fake", "plugins": [{"type": "fake"}]}
    (conf_dir / "10-fake.conflist").write_text(json.dumps(network))
