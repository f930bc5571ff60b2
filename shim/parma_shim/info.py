# SPDX-License-Identifier: Apache-2.0
"""``-info`` and ``-v``: what the runtime is and can do (tier 0).

containerd 2.0 and later asks; 2.2 and later once per daemon, before the first task.
"""

from . import __version__, fields

NAME = "io.containerd.parma.v2"

_FEATURES_TYPE = "types.containerd.io/opencontainers/runtime-spec/1/features/Features"

_FEATURES = (
    '{"ociVersionMin":"1.0.0","ociVersionMax":"1.2.0",'
    '"hooks":["prestart","createRuntime","createContainer","poststart","poststop"],'
    '"mountOptions":["bind","dev","exec","noatime","nodev","noexec","nosuid","rbind","ro","rro","rw","suid"],'
    '"linux":{"namespaces":["cgroup","ipc","mount","network","pid","uts"],'
    '"cgroup":{"v1":false,"v2":true,"systemd":false,"systemdUser":false},'
    '"seccomp":{"enabled":true},"apparmor":{"enabled":false},"selinux":{"enabled":false},'
    '"mountExtensions":{"idmap":{"enabled":false}}}}'
)

_ANNOTATIONS = {
    # Layers are read from the content store and never from a mount on the host, so containerd (2.2 and later) need
    # not make those it would otherwise make for us.
    "containerd.io/runtime-allow-mounts": "erofs,mkfs/*,format/*,mkdir/*,loop",
}


def runtime_info() -> bytes:
    """A ``containerd.types.RuntimeInfo``."""
    version = fields.bytes_field(1, __version__)
    features = fields.bytes_field(1, _FEATURES_TYPE) + fields.bytes_field(2, _FEATURES)
    annotations = b"".join(
        fields.bytes_field(5, fields.bytes_field(1, key) + fields.bytes_field(2, value))
        for key, value in _ANNOTATIONS.items()
    )
    return fields.bytes_field(1, NAME) + fields.bytes_field(2, version) + fields.bytes_field(4, features) + annotations


def version_text(program: str) -> str:
    """What ``-v`` prints."""
    return f"{program}:\n  Version:  {__version__}\n"
