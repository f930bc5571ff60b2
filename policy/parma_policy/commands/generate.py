# SPDX-License-Identifier: Apache-2.0
"""``parma policy generate``: policies for an image, a Compose file, Kubernetes manifests, or confcom's input."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from parma_policy.attestation import NAMES

_CONTAINERD = "/run/containerd/containerd.sock"
_DESCRIPTION = """\
Makes the execution policies that allow what a source asks for, and nothing else. Sources: an image (for 'ctr run'), a
Compose file (for nerdctl), Kubernetes manifests, or the JSON that 'az confcom acipolicygen --input' takes. Everything
in a source that cannot be honoured is an error with the path of its field; see docs/generate.md."""
_EPILOG = """\
Options with [CONTAINER:] count for one container of the source, without it for all. Images are looked for in the files
named with --image NAME=FILE, in those named with --image-archive, in containerd's store, and with --pull in their
registry (needs skopeo)."""


def add(commands: Any) -> None:
    """Adds the command to an argparse sub-parser collection."""
    parser = commands.add_parser(
        "generate",
        help="make policies for an image, a Compose file, Kubernetes manifests or confcom's input",
        description=_DESCRIPTION,
        epilog=_EPILOG,
    )
    _add_sources(parser.add_argument_group("sources"))
    _add_image_options(parser.add_argument_group("what to do with an image (source: an image)"))
    _add_container_options(parser.add_argument_group("what else containers may do"))
    _add_settings(parser.add_argument_group("how sources are understood"))
    _add_flags(parser.add_argument_group("what the host may see"))
    _add_output(parser.add_argument_group("output"))
    parser.set_defaults(run=run_generate)


def run_generate(arguments: argparse.Namespace) -> int:
    """Prints or writes the policies."""
    from parma_policy.generate.command import run

    return run(arguments)


def _add_sources(group: Any) -> None:
    append: dict[str, Any] = {"action": "append", "default": []}
    group.add_argument(
        "--image",
        metavar="NAME[=FILE]",
        **append,
        help="the image, in containerd's store or the archive; with =FILE: where an image that a source uses is",
    )
    group.add_argument(
        "--image-archive", type=Path, metavar="FILE", **append, help="a docker or OCI archive, or OCI layout directory"
    )
    group.add_argument("--compose", type=Path, metavar="FILE", help="a Compose file; each service gets a policy")
    group.add_argument(
        "--kubernetes",
        "-k",
        type=Path,
        metavar="FILE",
        **append,
        help="manifests, ConfigMaps and Secrets included; each workload gets a policy",
    )
    group.add_argument("--confcom", type=Path, metavar="FILE", help="confcom's input, version 1.0")
    group.add_argument("--containerd", metavar="ADDRESS", help=f"containerd's socket ({_CONTAINERD})")
    group.add_argument("--namespace", "-n", default="default", help="containerd's namespace (%(default)s)")
    group.add_argument("--pull", action="store_true", help="fetch images that are nowhere else, with skopeo")
    group.add_argument("--no-cache", action="store_true", help="neither use nor keep what is known of layers")


def _add_image_options(group: Any) -> None:
    group.add_argument("--command", metavar="JSON", help="the whole command line, as a list of strings")
    group.add_argument("--args", metavar="JSON", help="arguments for the image's entrypoint, as a list of strings")
    group.add_argument("--user", help="uid, name, uid:gid or name:group in place of the image's")
    group.add_argument("--cwd", help="working directory in place of the image's")
    group.add_argument("--cap-add", action="append", default=[], metavar="NAME", help="one more capability")
    group.add_argument("--cap-drop", action="append", default=[], metavar="NAME", help="one capability less")
    group.add_argument("--privileged", action="store_true", help="what 'ctr run --privileged' asks for")
    group.add_argument("--allow-new-privs", action="store_true", help="what 'ctr run --allow-new-privs' asks for")
    group.add_argument("--seccomp", metavar="default|FILE", help="the seccomp profile that is applied")


def _add_container_options(group: Any) -> None:
    append: dict[str, Any] = {"action": "append", "default": []}
    group.add_argument("--env", metavar="[CONTAINER:]NAME=VALUE", **append, help="a variable with this value")
    group.add_argument("--any-value", metavar="[CONTAINER:]NAME", **append, help="a variable with whatever value")
    group.add_argument("--exec", metavar="[CONTAINER:]JSON", **append, help="a command that may be run in it")
    group.add_argument("--signal", metavar="[CONTAINER:]SIGNAL", **append, help="one more signal that it may get")
    group.add_argument("--mount", metavar="[CONTAINER:]SPEC", **append, help="a mount, as ctr's --mount")
    group.add_argument(
        "--attestation",
        metavar="[CONTAINER:]NAME",
        **append,
        help=f"what of attestation it may reach: {', '.join(NAMES)}",
    )
    group.add_argument("--no-stdio", action="store_true", help="the host neither sees output nor gives input")
    group.add_argument(
        "--fragment",
        metavar="ISSUER,FEED,SVN,INCLUDES",
        **append,
        help="a signed fragment that may be loaded; includes are joined with +",
    )


def _add_settings(group: Any) -> None:
    append: dict[str, Any] = {"action": "append", "default": []}
    group.add_argument(
        "--platform", metavar="SET", default="", help="the rule set of what the platform adds, or a file"
    )
    group.add_argument(
        "--seccomp-default", metavar="NAME", default="", help="the default seccomp profile to expect, or a file"
    )
    group.add_argument(
        "--layer-format",
        choices=("ext4", "erofs"),
        default="ext4",
        help="ext4: as every host converts them; erofs: as containerd 2.3 makes them, where it is set up for that",
    )
    group.add_argument(
        "--mkfs-erofs", metavar="PATH", default="mkfs.erofs", help="the program for --layer-format erofs (%(default)s)"
    )
    group.add_argument("--seccomp-root", type=Path, metavar="DIR", help="kubelet's directory of seccomp profiles")
    group.add_argument("--compose-env", type=Path, metavar="FILE", **append, help="variables for ${NAME} in Compose")
    group.add_argument("--project-name", metavar="NAME", default="", help="the Compose project's name")
    group.add_argument(
        "--sandbox-image", metavar="NAME", default="", help="allow the pod's own container of this image"
    )
    group.add_argument("--allow-host-path", metavar="PATH", **append, help="a path of the host that may be mounted")
    group.add_argument("--pin", metavar="DST=FILE", **append, help="the file, or directory, that is mounted at DST")
    group.add_argument(
        "--file-updates",
        action="store_true",
        help="mounted config maps, secrets and tokens may change, and nerdctl's /etc/hosts",
    )
    group.add_argument("--ignore-field", metavar="PATH", **append, help="a field to set aside, as an error named it")
    group.add_argument("--only", metavar="NAME", **append, help="this service or workload, and no other")


def _add_flags(group: Any) -> None:
    group.add_argument("--no-properties", action="store_true", help="the host sees neither statistics nor processes")
    group.add_argument("--runtime-logging", action="store_true", help="the host sees the enforcer's own log")
    group.add_argument("--dump-stacks", action="store_true", help="the host may ask for the enforcer's stacks")
    group.add_argument("--no-network", action="store_true", help="the host connects the containers to no network")
    text = "the host may connect to this port on the containers' loopback (kubectl port-forward)"
    group.add_argument("--forward-port", metavar="PORT", type=_port, action="append", default=[], help=text)
    group.add_argument("--permissive", action="store_true", help="deny nothing, record what would have been denied")


def _port(text: str) -> int:
    if not text.isascii() or not text.isdigit() or not 0 < int(text) < 65536:
        raise argparse.ArgumentTypeError(f"{text[:20]!r} is not a port from 1 to 65535")
    return int(text)


def _add_output(group: Any) -> None:
    group.add_argument("--out", type=Path, metavar="FILE", help="where to put the policy; else standard output")
    group.add_argument("--out-dir", type=Path, metavar="DIR", help="where to put several, as NAME.rego")
    group.add_argument("--together", action="store_true", help="one policy for all of the source's containers")
    group.add_argument("--annotation", action="store_true", help="print annotations to paste, not the texts")
    group.add_argument("--out-yaml", type=Path, metavar="FILE", help="where to put the manifest with the annotations")
    group.add_argument("--in-place", action="store_true", help="put the annotations into the manifests themselves")
    group.add_argument(
        "--runtime-class", metavar="NAME", default="parma", help="for manifests: the runtime class (%(default)s)"
    )
