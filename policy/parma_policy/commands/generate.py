# SPDX-License-Identifier: Apache-2.0
"""``parma policy generate``: the policy for an image."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from parma_policy.attestation import NAMES
from parma_policy.commands.files import write_file
from parma_wire.errors import Malformed

_CONTAINERD = "/run/containerd/containerd.sock"


def add(commands: Any) -> None:
    """Adds the command to an argparse sub-parser collection."""
    parser = commands.add_parser(
        "generate",
        help="make the policy for an image",
        description="Makes the policy that allows 'ctr run IMAGE NAME [ARGUMENT...]' and nothing else.",
    )
    parser.add_argument("--image-archive", type=Path, metavar="FILE", help="a docker or OCI archive, or OCI layout")
    parser.add_argument("--image", metavar="REF", help="the image in containerd's store, or in the archive")
    parser.add_argument(
        "--containerd", metavar="ADDRESS", default=_CONTAINERD, help="containerd's socket (%(default)s)"
    )
    parser.add_argument("--namespace", "-n", default="default", help="containerd's namespace (%(default)s)")
    parser.add_argument("--command", type=_command, metavar="JSON", help="arguments in place of the image's command")
    parser.add_argument("--env", action="append", default=[], metavar="NAME=VALUE", help="a variable that ctr sets")
    parser.add_argument("--exec", action="append", default=[], type=_command, metavar="JSON", help="a command to allow")
    parser.add_argument("--signal", action="append", default=[], metavar="SIGNAL", help="one more signal to allow")
    parser.add_argument("--mount", action="append", default=[], metavar="SPEC", help="as ctr's --mount")
    parser.add_argument("--user", help="uid, name, uid:gid or name:group in place of the image's")
    parser.add_argument("--cwd", help="working directory in place of the image's")
    parser.add_argument("--privileged", action="store_true", help="what 'ctr run --privileged' asks for")
    parser.add_argument(
        "--attestation",
        action="append",
        default=[],
        choices=NAMES,
        metavar="NAME",
        help=f"what of attestation the container may reach: {', '.join(NAMES)}",
    )
    parser.add_argument("--no-stdio", action="store_true", help="the host neither sees output nor gives input")
    parser.add_argument("--no-properties", action="store_true", help="the host sees neither statistics nor processes")
    parser.add_argument("--runtime-logging", action="store_true", help="the host sees the enforcer's own log")
    parser.add_argument("--out", type=Path, metavar="FILE", help="where to put it; else standard output")
    parser.set_defaults(run=run_generate)


def _command(text: str) -> tuple[str, ...]:
    """A command line as JSON list of strings."""
    try:
        value = json.loads(text)
    except ValueError:
        value = None
    if not isinstance(value, list) or not value or not all(isinstance(item, str) for item in value):
        message = f'{text!r} is not a JSON list of strings, like \'["/bin/echo", "hi"]\''
        raise argparse.ArgumentTypeError(message)
    return tuple(value)


def run_generate(arguments: argparse.Namespace) -> int:
    """Prints or writes the policy."""
    from parma_policy import generate, images

    wish = generate.Wish(
        command=arguments.command,
        env=tuple(arguments.env),
        execs=tuple(arguments.exec),
        signals=tuple(map(generate.signal_number, arguments.signal)),
        mounts=tuple(map(parse_mount, arguments.mount)),
        user=arguments.user,
        working_dir=arguments.cwd,
        privileged=arguments.privileged,
        stdio=not arguments.no_stdio,
        attestation=tuple(arguments.attestation),
    )
    if arguments.image_archive is not None:
        image = images.from_archive(arguments.image_archive, arguments.image or "")
    elif arguments.image:
        image = images.from_containerd(arguments.containerd, arguments.namespace, arguments.image)
    else:
        raise Malformed("no image is given", expected="--image-archive FILE or --image REF")
    switches = generate.Switches(
        properties_access=not arguments.no_properties, runtime_logging=arguments.runtime_logging
    )
    text = generate.generate([generate.container_for(image, wish)], switches)
    if arguments.out is None:
        sys.stdout.write(text)
    else:
        write_file(arguments.out, text.encode())
    return 0


def parse_mount(text: str) -> Any:
    """A mount as ``ctr run --mount`` takes it: ``type=bind,src=/a,dst=/b,options=rbind:ro``. Raises Malformed."""
    from parma_policy.generate import Mount

    names = {"type": "type", "src": "source", "source": "source", "dst": "destination", "destination": "destination"}
    given: dict[str, str] = {}
    for part in text.split(","):
        key, separator, value = part.partition("=")
        name = names.get(key, "options" if key == "options" else "")
        if not separator or not name or name in given:
            raise Malformed(f"bad part {part!r} of a mount", expected="type=,src=,dst=,options=a:b")
        given[name] = value
    if "destination" not in given or "source" not in given:
        raise Malformed(f"mount {text!r} lacks a source or destination")
    options = tuple(option for option in given.get("options", "").split(":") if option)
    return Mount(given["destination"], given["source"], given.get("type", ""), options)
