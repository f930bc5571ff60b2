# SPDX-License-Identifier: Apache-2.0
"""CNI plugins for tests: one that makes no network, and one that plugs pods into a bridge which only the test has.

containerd's CRI plugin wants a network of every pod, and real plugins would change the machine's.
"""

from __future__ import annotations

import json
from pathlib import Path

NAMESPACES = "namespaces"
"""The file below ``bin_dir`` with the names of all network namespaces that the plugins were ever called for."""

_PLUGIN = """\
#!/bin/sh
# For tests: see tests/fake_cni.py
set -e
hub='{hub}'
ns=${{CNI_NETNS##*/}}
case "$CNI_COMMAND" in
VERSION) echo '{{"cniVersion": "1.0.0", "supportedVersions": ["0.3.1", "0.4.0", "1.0.0"]}}'; exit ;;
ADD) ;;
*) cat > /dev/null; exit ;;
esac
echo "$ns" >> '{namespaces}'
cat > /dev/null
number=7
if [ "$CNI_IFNAME" != lo ] && [ -n "$hub" ]; then
  number=$(( $(cat '{counter}') + 1 ))
  echo $number > '{counter}'
  ip -n "$hub" link add port$number type veth peer name "$CNI_IFNAME" netns "$ns"
  ip -n "$hub" link set port$number master br0 up
  ip -n "$ns" addr add 10.88.0.$number/24 dev "$CNI_IFNAME"
  ip -n "$ns" link set "$CNI_IFNAME" up
  ip -n "$ns" route add default via 10.88.0.1
elif [ -n "$hub" ]; then
  ip -n "$ns" link set lo up
fi
echo '{{"cniVersion": "1.0.0",
  "interfaces": [{{"name": "'"$CNI_IFNAME"'", "sandbox": "'"$CNI_NETNS"'"}}],
  "ips": [{{"address": "10.88.0.'$number'/24", "interface": 0}}]}}'
"""


def write(conf_dir: Path, bin_dir: Path, hub: str = "") -> None:
    """Into ``conf_dir`` and ``bin_dir`` of a containerd's configuration.

    ``hub`` is the network namespace of a bridge ``br0`` (`tests.e2e.networks.Bridge`); without one a pod has an address
    and nothing behind it.
    """
    conf_dir.mkdir(parents=True, exist_ok=True)
    bin_dir.mkdir(parents=True, exist_ok=True)
    counter = bin_dir / "counter"
    counter.write_text("100")
    for name in ("fake", "loopback"):
        (bin_dir / name).write_text(_PLUGIN.format(hub=hub, counter=counter, namespaces=bin_dir / NAMESPACES))
        (bin_dir / name).chmod(0o755)
    network = {"cniVersion": "1.0.0", "name": "fake", "plugins": [{"type": "fake"}]}
    (conf_dir / "10-fake.conflist").write_text(json.dumps(network))
