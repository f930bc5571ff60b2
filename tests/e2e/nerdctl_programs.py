# SPDX-License-Identifier: Apache-2.0
"""The two programs that nerdctl has containerd and runtimes run: its OCI hook, and its logger.

``nerdctl_programs.py NODE DIRECTORY createRuntime|postStop`` connects the container, whose state it is told, to a
bridge in the network namespace it is run in, and refuses to do so anywhere but in the node's: real CNI plugins, with
the published ports of ``DIRECTORY/<id>/ports``; then it writes ``/etc/hosts`` of all containers.
As a logger (``binary://``): what it reads from the descriptors 3 and 4 is added to ``DIRECTORY/<id>/log``.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

LOGGING = "_LOGGING"


def hook(directory: Path, event: str) -> None:
    """Raises CalledProcessError for a plugin that fails."""
    state = json.load(sys.stdin)
    own = directory / state["id"]
    if event == "createRuntime":
        _connect(own, state)
    else:
        _disconnect(own, state)
    entries = [(at / "address", at / "name") for at in directory.iterdir()]
    lines = [f"{address.read_text()} {name.read_text()}\n" for address, name in entries if address.exists()]
    for at in directory.iterdir():
        if at.is_dir():
            (at / "hosts").write_text("127.0.0.1 localhost\n" + "".join(lines))


def _connect(own: Path, state: dict[str, Any]) -> None:
    result = None
    for configuration in _plugins(own):
        result = _plugin("ADD", configuration, state, f"/proc/{state['pid']}/ns/net", result)
    assert result is not None
    (own / "address").write_text(result["ips"][0]["address"].partition("/")[0])
    (own / "result").write_text(json.dumps(result))


def _disconnect(own: Path, state: dict[str, Any]) -> None:
    if not (own / "result").exists():
        return
    result = json.loads((own / "result").read_text())
    for configuration in reversed(_plugins(own)):
        _plugin("DEL", configuration, state, "", result)
    (own / "address").unlink()
    (own / "result").unlink()


def _plugins(own: Path) -> list[dict[str, Any]]:
    ipam = {
        "type": "host-local",
        "dataDir": str(own.parent / "ipam"),
        "ranges": [[{"subnet": "10.99.0.0/24"}]],
        "routes": [{"dst": "0.0.0.0/0"}],
    }
    ports = json.loads((own / "ports").read_text())
    return [
        {"type": "bridge", "bridge": "nerdctl0", "isGateway": True, "ipMasq": True, "hairpinMode": True, "ipam": ipam},
        {"type": "portmap", "capabilities": {"portMappings": True}, "runtimeConfig": {"portMappings": ports}},
    ]


def _plugin(
    command: str, configuration: dict[str, Any], state: dict[str, Any], namespace: str, result: object
) -> dict[str, Any]:
    common = {"cniVersion": "1.0.0", "name": "bridge", **({"prevResult": result} if result else {})}
    environment = {
        **os.environ,
        "CNI_COMMAND": command,
        "CNI_CONTAINERID": f"default-{state['id']}",
        "CNI_NETNS": namespace,
        "CNI_IFNAME": "eth0",
    }
    done = subprocess.run(
        [Path(os.environ["CNI_PATH"], configuration["type"])],
        input=json.dumps({**common, **configuration}),
        env=environment,
        check=False,
        capture_output=True,
        text=True,
    )
    if done.returncode:
        sys.exit(f"{configuration['type']} {command}: {done.stdout}{done.stderr}")
    answer: dict[str, Any] = json.loads(done.stdout or "{}")
    return answer


def log(file: Path) -> None:
    """Until both streams are at their ends."""
    with file.open("ab", buffering=0) as out:

        def copy(descriptor: int) -> None:
            while piece := os.read(descriptor, 65536):
                out.write(piece)

        threads = [threading.Thread(target=copy, args=(descriptor,)) for descriptor in (3, 4)]
        for thread in threads:
            thread.start()
        os.close(5)  # ready
        for thread in threads:
            thread.join()


def main(arguments: list[str]) -> None:
    if arguments[0] == LOGGING:
        log(Path(arguments[1]) / os.environ["CONTAINER_ID"] / "log")
        return
    node, directory, event = arguments
    if not Path("/proc/self/ns/net").samefile(node):
        sys.exit("this is not the node's network namespace")
    hook(Path(directory), event)


if __name__ == "__main__":
    main(sys.argv[1:])
