# SPDX-License-Identifier: Apache-2.0
"""Which task API version to offer to containerd (tier 0).

containerd 1.7 refuses version 3; 2.x wants it for the sandbox API and streams. Nothing in arguments or environment
tells 1.7 from 2.0-2.2, so the running daemon's executable is asked once. ``/proc/<pid>/exe`` and not the path that
containerd passes: after an upgrade without restart the file on disk is newer than the daemon.
"""

import posix

from . import bootstrap, bundle, config_files

RUN_DIR = "/run/parma"
"""Where the answers are remembered, one small file per executable."""


def version_to_offer(boot: bootstrap.Bootstrap, config: str, *, executable: str = "", run_dir: str = RUN_DIR) -> int:
    """1 (a plain address), 2 or 3.

    Args:
        config: path of the configuration file that applies; its ``task_api`` wins over everything found out here.
        executable: containerd's; by default that of the parent process.
    """
    configured = _configured(config, boot.config_body)
    if configured:
        return configured
    if boot.dialect == bootstrap.PARAMS:
        return 3
    if boot.dialect == bootstrap.LEGACY:
        return 1
    executable = executable or f"/proc/{posix.getppid()}/exe"
    try:
        found = posix.stat(executable)
    except OSError:
        return 3
    remembered = f"{run_dir}/containerd-{found.st_dev}-{found.st_ino}-{found.st_mtime_ns}"
    data = bundle.read_file(remembered)
    if data in (b"2", b"3"):
        return int(data)
    version = 2 if _major(_version_text(executable)) == 1 else 3
    _remember(remembered, version)
    return version


def _configured(path: str, body: bytes) -> int:
    """``task_api`` of the configuration; 0 for ``auto``, and for all that is wrong (the daemon says so better)."""
    texts = [*map(bundle.read_file, config_files.config_files(path)), body]
    value = ""
    for text in texts:
        if text and b"task_api" in text:
            import tomllib  # 20 ms, only for those who set the knob

            try:
                value = str(tomllib.loads(text.decode()).get("task_api", value))
            except ValueError:
                return 0
    return int(value) if value in ("2", "3") else 0


def _version_text(executable: str) -> str:
    """What ``containerd --version`` prints; empty when it cannot be run."""
    read_end, write_end = posix.pipe()
    null = posix.open("/dev/null", posix.O_RDWR | posix.O_CLOEXEC)
    try:
        actions = [(posix.POSIX_SPAWN_DUP2, source, target) for target, source in enumerate((null, write_end, null))]
        command = ["containerd", "--version"]
        pid = posix.posix_spawn(executable, command, {"PATH": "/usr/bin:/bin"}, file_actions=actions)
    except OSError:
        posix.close(read_end)
        return ""
    finally:
        posix.close(write_end)
        posix.close(null)
    with open(read_end, "rb", buffering=0) as output:
        text = output.read(4096) or b""
    posix.waitpid(pid, 0)
    return text.decode(errors="replace")


def _major(text: str) -> int:
    """1 for "containerd github.com/containerd/containerd v1.7.24 ...", 0 for anything that is not containerd."""
    words = text.split()
    if not words or words[0] != "containerd":
        return 0  # dockerd with a containerd built in, or no answer
    for word in words[1:]:
        head = word.removeprefix("v").partition(".")
        if head[1] and head[0].isdecimal():
            return int(head[0])
    return 0


def _remember(path: str, version: int) -> None:
    try:
        bundle.make_directories(path.rpartition("/")[0])
        bundle.replace_file(path, b"%d" % version)
    except OSError:
        pass  # asked again next time
