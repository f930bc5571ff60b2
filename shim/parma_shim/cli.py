# SPDX-License-Identifier: Apache-2.0
"""The command ``parma``: one door to the tools of every room. Each room's commands are imported only when used."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any, Final

from parma_shim import __version__
from parma_wire.errors import ParmaError

_ROOMS: Final[dict[str, tuple[str, str]]] = {
    "policy": ("parma_policy.cli", "add_policy_commands"),
    "fragment": ("parma_policy.commands.fragment", "add_fragment_commands"),
    "verify": ("parma_snp.cli", "add_snp_commands"),
    "certificates": ("parma_snp.cli", "add_snp_commands"),
    "measure": ("parma_snp.measure_cli", "add_measure_commands"),
    "id-block": ("parma_snp.measure_cli", "add_measure_commands"),
    "doctor": ("parma_shim.doctor.cli", "add_doctor_commands"),
    "image": ("parma_image.cli", "add_image_commands"),
    "status": ("parma_shim.status_cli", "add_status_commands"),
    "record": ("parma_shim.record_cli", "add_record_commands"),
    "metrics": ("parma_shim.metrics_cli", "add_metrics_commands"),
    "evidence": ("parma_shim.evidence_cli", "add_evidence_commands"),
}
"""First word of the command -> module and function that add it (and what belongs to it) to the parser."""

Handler = Callable[[argparse.Namespace], int | None]


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command and returns its exit status: 0, 1 for an error it reported, 2 for wrong usage."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    options = build_parser(words).parse_args(words)
    handler: Handler = options.run
    try:
        return handler(options) or 0
    except ParmaError as error:
        print(f"parma: {error}", file=sys.stderr)
    except BrokenPipeError:
        pass  # the reader has seen enough
    except OSError as error:
        print(f"parma: {error}", file=sys.stderr)
    return 1


def build_parser(words: Sequence[str] = ()) -> argparse.ArgumentParser:
    """The parser with the room that ``words`` ask for; with every room when they ask for none of them (help)."""
    parser = argparse.ArgumentParser(
        prog="parma", description="Confidential containers via attested execution policies"
    )
    parser.add_argument("--version", action="version", version=f"parma {__version__}")
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    wanted = next((word for word in words if not word.startswith("-")), "")
    rooms = [_ROOMS[wanted]] if wanted in _ROOMS else list(dict.fromkeys(_ROOMS.values()))
    if wanted not in _OWN:
        for module, function in rooms:
            _add_room(commands, module, function)
    for add in _OWN.values():
        add(commands)
    return parser


def _add_room(commands: Any, module: str, function: str) -> None:
    """Adds a room's commands, unless it or what it needs is not installed: a relying party has parma[snp] only."""
    try:
        adder = getattr(import_module(module), function)
    except ModuleNotFoundError:
        return
    adder(commands)


def _add_config(commands: Any) -> None:
    parser = commands.add_parser("config", help="the host's configuration")
    actions = parser.add_subparsers(metavar="ACTION", required=True)
    show = actions.add_parser("show", help="print the configuration that applies, defaults included")
    show.add_argument("--config", default="", metavar="PATH", help="another file than the default one")
    show.add_argument("--origin", action="store_true", help="say where each value comes from")
    show.set_defaults(run=_show_config)


def _show_config(options: argparse.Namespace) -> int:
    from parma_shim import config

    loaded = config.load_with_origins(options.config)
    for key, line in config.to_lines(loaded.config).items():
        print(f"{line}  # {loaded.origins.get(key, 'default')}" if options.origin else line)
    return 0


def _add_launcher(commands: Any) -> None:
    parser = commands.add_parser("shim-launcher", help="write the program that containerd executes")
    parser.add_argument("--config", default="", metavar="PATH", help="configuration to build in (default: the usual)")
    parser.add_argument("out", metavar="OUT", type=Path, help="file to write, named containerd-shim-parma-v2")
    parser.set_defaults(run=_write_launcher)


def _write_launcher(options: argparse.Namespace) -> int:
    from parma_shim import launcher

    launcher.write_launcher(options.out, config=options.config)
    return 0


_OWN: Final[dict[str, Callable[[Any], None]]] = {"config": _add_config, "shim-launcher": _add_launcher}


if __name__ == "__main__":
    sys.exit(main())
