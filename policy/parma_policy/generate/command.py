# SPDX-License-Identifier: Apache-2.0
"""What ``parma policy generate`` does: from parsed arguments to settings, and from policies to files and output."""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Callable, Iterable, Sequence, Set
from dataclasses import replace
from pathlib import Path
from typing import Final, TypeVar

from parma_policy import attestation
from parma_policy.annotation import ANNOTATION, to_annotation
from parma_policy.commands.files import write_file
from parma_policy.generate import capabilities, seccomp_profiles
from parma_policy.generate.assemble import DEFAULT_SECCOMP, Seccomp
from parma_policy.generate.documents import decoded, read_file
from parma_policy.generate.erofs import ErofsReader, Reader
from parma_policy.generate.hashing import LayerReader, user_cache
from parma_policy.generate.kubernetes import insert
from parma_policy.generate.library import Library, Places
from parma_policy.generate.patterns import quoted
from parma_policy.generate.policy import Fragment, Mount, Switches
from parma_policy.generate.progress import TerminalBar
from parma_policy.generate.provided import ProvidedFiles, parse_pin
from parma_policy.generate.run import EVERY_CONTAINER, Made, Settings
from parma_policy.generate.run import run as generate
from parma_policy.generate.signals import signal_number
from parma_policy.generate.source import ContainerOptions
from parma_policy.generate.wish import Wish, variable
from parma_wire.errors import Malformed, Unavailable

T = TypeVar("T")

_CONTAINERD: Final = "/run/containerd/containerd.sock"
_PREFIX: Final = re.compile(r"([A-Za-z0-9][A-Za-z0-9._-]*):(.*)", re.DOTALL)
_MANY: Final = ("compose", "kubernetes", "confcom")
_ONLY_FOR: Final = {
    "ignore_field": _MANY,
    "only": _MANY,
    "together": _MANY,
    "compose_env": ("compose",),
    "project_name": ("compose",),
    "seccomp_root": ("kubernetes",),
    "sandbox_image": ("kubernetes",),
}
"""Options by the sources for which they count; the others count for all."""
_OF_THE_PLATFORM: Final = ("/etc/hosts", "/etc/hostname", "/etc/resolv.conf")
"""Where the guest knows what is mounted by its place."""
_FILE_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,200}", re.ASCII)
_MAX_ANNOTATIONS: Final = 256 * 1024
"""Kubernetes' limit for all annotations of an object, in bytes."""


def run(arguments: argparse.Namespace) -> int:
    """The command; errors are ParmaErrors."""
    settings = settings_of(arguments)
    bar = TerminalBar(sys.stderr) if sys.stderr.isatty() else None
    library = Library(_places(arguments), _reader(arguments, bar))
    try:
        made = generate(settings, library)
    finally:
        library.close()
    _put_out(arguments, made)
    return 0


def _reader(arguments: argparse.Namespace, bar: TerminalBar | None) -> Reader:
    reader = LayerReader(None if arguments.no_cache else user_cache(), bar=bar)
    return ErofsReader(reader, arguments.mkfs_erofs) if arguments.layer_format == "erofs" else reader


# -- arguments ---------------------------------------------------------------------------------------------------


def settings_of(arguments: argparse.Namespace) -> Settings:
    """What the arguments say. Raises Malformed for what contradicts itself."""
    given = [name for name in ("compose", "kubernetes", "confcom") if getattr(arguments, name)]
    if len(given) > 1:
        raise Malformed(f"--{given[0]} and --{given[1]} are given", expected="one source")
    if given:
        _refuse_image_options(arguments)
    _refuse_options_of_others(arguments, given[0] if given else "image")
    options = _container_options(arguments)
    return Settings(
        image=None if given else _image_name(arguments),
        compose=arguments.compose,
        kubernetes=arguments.kubernetes,
        confcom=arguments.confcom,
        platform=arguments.platform,
        seccomp_default=arguments.seccomp_default,
        wish=Wish() if given else _wish(arguments, options),
        options=options,
        only=arguments.only,
        together=arguments.together,
        ignored=arguments.ignore_field,
        host_paths=frozenset(arguments.allow_host_path),
        provided=_provided(arguments),
        seccomp_root=arguments.seccomp_root,
        compose_env=arguments.compose_env,
        project_name=arguments.project_name,
        sandbox_image=arguments.sandbox_image,
        fragments=tuple(map(_fragment, arguments.fragment)),
        switches=Switches(
            properties_access=not arguments.no_properties,
            dump_stacks=arguments.dump_stacks,
            runtime_logging=arguments.runtime_logging,
            permissive=arguments.permissive,
            network=not arguments.no_network,
            forward_ports=tuple(arguments.forward_port),
        ),
    )


def _provided(arguments: argparse.Namespace) -> ProvidedFiles:
    """Of Kubernetes' managers none changes ``/etc/hosts``; only nerdctl does."""
    by_nerdctl = not arguments.kubernetes and not arguments.confcom
    updates = arguments.file_updates
    return ProvidedFiles(dict(map(parse_pin, arguments.pin)), updates, hosts=updates and by_nerdctl)


def _refuse_image_options(arguments: argparse.Namespace) -> None:
    for name in ("command", "args", "user", "cwd", "cap_add", "cap_drop", "privileged", "allow_new_privs", "seccomp"):
        if getattr(arguments, name):
            option = name.replace("_", "-")
            raise Malformed(f"--{option} is about an image", hint="say it in the source itself")
    for text in arguments.image:
        if "=" not in text:
            raise Malformed(f"--image {text[:200]} is a source of its own", expected="--image NAME=FILE, or one source")


def _refuse_options_of_others(arguments: argparse.Namespace, source: str) -> None:
    """What does not count for this source is an error: an option is never dropped in silence."""
    for name, sources in _ONLY_FOR.items():
        if getattr(arguments, name) and source not in sources:
            option = name.replace("_", "-")
            expected = " or ".join(f"--{other}" for other in sources)
            raise Malformed(f"--{option} says nothing about --{source}", expected=expected)


def _image_name(arguments: argparse.Namespace) -> str:
    names = [text.partition("=")[0] for text in arguments.image]
    if len(names) > 1 or len(arguments.image_archive) > 1:
        raise Malformed("several images are given", expected="one, or a source that uses them")
    if not names and not arguments.image_archive:
        expected = "--image NAME, --image-archive FILE, --compose, --kubernetes or --confcom"
        raise Malformed("no source is given", expected=expected)
    return names[0] if names else ""


def _places(arguments: argparse.Namespace) -> Places:
    named = {}
    for text in arguments.image:
        name, separator, path = text.partition("=")
        if separator:
            named[name] = Path(path)
    address = arguments.containerd or (_CONTAINERD if Path(_CONTAINERD).exists() else "")
    only_there = not (named or arguments.image_archive or arguments.pull)
    return Places(
        named=named,
        archives=arguments.image_archive,
        containerd=address or (_CONTAINERD if only_there else ""),
        namespace=arguments.namespace,
        pull=arguments.pull,
    )


def _wish(arguments: argparse.Namespace, options: dict[str, ContainerOptions]) -> Wish:
    common = options.get(EVERY_CONTAINER, ContainerOptions())
    named = next((name for name in options if name), None)
    if named is not None:
        raise Malformed(f"{named}: is put before an option, and an image makes one container")
    seccomp = None
    if arguments.seccomp == "default":
        seccomp = DEFAULT_SECCOMP
    elif arguments.seccomp:
        seccomp = Seccomp("file", seccomp_profiles.from_file(Path(arguments.seccomp)))
    return Wish(
        command=command_line(arguments.command) if arguments.command is not None else None,
        arguments=command_line(arguments.args) if arguments.args is not None else None,
        env=tuple(arguments.env),
        any_value=common.any_value,
        execs=common.execs,
        signals=common.signals,
        mounts=common.mounts,
        user=arguments.user,
        working_dir=arguments.cwd,
        add=tuple(map(_capability, arguments.cap_add)),
        drop=tuple(map(_capability, arguments.cap_drop)),
        privileged=arguments.privileged,
        new_privileges=arguments.allow_new_privs,
        seccomp=seccomp,
        stdio=not arguments.no_stdio,
        attestation=common.attestation,
    )


def _attestation(text: str) -> str:
    if text not in attestation.NAMES:
        raise Malformed(f"{text[:40]!r} is nothing of attestation", expected=" or ".join(attestation.NAMES))
    return text


def _capability(text: str) -> str:
    name = capabilities.full_name(text)
    if not name:
        raise Malformed(f"{text[:40]!r} is no capability of Linux", expected="a name like CAP_NET_ADMIN")
    return name


def _container_options(arguments: argparse.Namespace) -> dict[str, ContainerOptions]:
    found: dict[str, ContainerOptions] = {}

    def add(texts: Iterable[str], read: Callable[[str], ContainerOptions]) -> None:
        for text in texts:
            name, rest = _container_and_rest(text)
            found[name] = found.get(name, ContainerOptions()).and_also(read(rest))

    add(arguments.env, lambda text: ContainerOptions(env=(variable(text),)))
    add(arguments.any_value, lambda text: ContainerOptions(any_value=(text,)))
    add(arguments.exec, lambda text: ContainerOptions(execs=(command_line(text),)))
    add(arguments.signal, lambda text: ContainerOptions(signals=(signal_number(text),)))
    add(arguments.attestation, lambda text: ContainerOptions(attestation=(_attestation(text),)))
    host_paths = frozenset(arguments.allow_host_path)
    add(arguments.mount, lambda text: ContainerOptions(mounts=(of_host(parse_mount(text), host_paths),)))
    if arguments.no_stdio:
        found[EVERY_CONTAINER] = replace(found.get(EVERY_CONTAINER, ContainerOptions()), stdio=False)
    return found


def _container_and_rest(text: str) -> tuple[str, str]:
    """``web:A=1`` is about ``web``; ``A=1:2``, ``type=bind,options=a:b`` and ``["a:b"]`` are about all."""
    match = _PREFIX.fullmatch(text)
    return (match[1], match[2]) if match else (EVERY_CONTAINER, text)


def command_line(text: str) -> tuple[str, ...]:
    """A command line as JSON list of strings. Raises Malformed."""
    try:
        value = json.loads(text)
    except ValueError:
        value = None
    if not isinstance(value, list) or not value or not all(isinstance(item, str) for item in value):
        raise Malformed(f"{text[:200]!r} is not a JSON list of strings", expected='for example \'["/bin/echo", "hi"]\'')
    return tuple(value)


def parse_mount(text: str) -> Mount:
    """A mount as ``ctr run --mount`` takes it: ``type=bind,src=/a,dst=/b,options=rbind:ro``. Raises Malformed."""
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
    return Mount(given["destination"], given["source"], given.get("type", ""), options, "asked for on the command line")


def of_host(mount: Mount, host_paths: Set[str]) -> Mount:
    """A bind mount of a path of the host, by the name that it has in the guest. Raises Malformed where not allowed."""
    path = mount.source.rstrip("/") or mount.source
    if mount.type != "bind" or not path.startswith("/"):
        return mount
    if path not in host_paths:
        hint = f"allow it with --allow-host-path {path}, or name a source in the guest (sandbox://...)"
        raise Malformed(f"{path} is of the host, which can change it at any time", hint=hint)
    place = mount.destination if mount.destination in _OF_THE_PLATFORM else f"/host{path.rstrip('/')}"
    return replace(mount, source=f"sandbox://{quoted(place)}")


def _fragment(text: str) -> Fragment:
    parts = text.rsplit(",", 3)
    if len(parts) != 4 or not all(parts):
        expected = "ISSUER,FEED,MINIMUM_SVN,INCLUDES, for example did:x509:...,example.org/feed,1,containers+fragments"
        raise Malformed(f"{text[:200]!r} does not describe a fragment", expected=expected)
    issuer, feed, svn, includes = parts
    return Fragment(issuer, feed, svn, tuple(includes.split("+")))


# -- output ------------------------------------------------------------------------------------------------------


def _put_out(arguments: argparse.Namespace, made: Sequence[Made]) -> None:
    into_manifests = arguments.out_yaml is not None or arguments.in_place
    if into_manifests:
        _into_manifests(arguments, made)
    if arguments.out_dir is not None:
        _into_directory(arguments.out_dir, made)
    if arguments.annotation:
        for item in made:
            lines = [f"{name}: {value}" for name, value in _annotations(item).items()]
            _say(*([f"# {item.title}"] if item.title else []), *lines)
    if arguments.out is not None or not (into_manifests or arguments.out_dir is not None or arguments.annotation):
        _single(arguments.out, made)


def _say(*lines: str) -> None:
    sys.stdout.write("".join(f"{line}\n" for line in lines))


def _single(out: Path | None, made: Sequence[Made]) -> None:
    if len(made) != 1:
        titles = ", ".join(item.title for item in made) or "none"
        hint = "give --out-dir DIR, choose one with --only NAME, or say --together"
        raise Malformed(f"the source makes {len(made)} policies: {titles}", expected="one", hint=hint)
    if out is None:
        sys.stdout.write(made[0].text)
    else:
        write_file(out, made[0].text.encode())


def _into_directory(directory: Path, made: Sequence[Made]) -> None:
    try:
        directory.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise Unavailable(f"cannot make {directory}: {error.strerror}") from error
    for item in made:
        # Names come from the source, and must not lead out of the directory.
        if not _FILE_NAME.fullmatch(item.name):
            raise Malformed(f"{item.title[:80]!r} cannot be the name of a file", hint="use --only NAME with --out FILE")
        write_file(directory / f"{item.name}.rego", item.text.encode())


def _annotations(made: Made) -> dict[str, str]:
    text = to_annotation(made.text.encode())
    if len(text) > _MAX_ANNOTATIONS:
        hint = "put the policy on the nodes and name it with the annotation io.parma.policy-file"
        raise Malformed(f"{made.title}: the annotation has {len(text)} bytes, too many for Kubernetes", hint=hint)
    return {ANNOTATION: text, **made.annotations}


def _into_manifests(arguments: argparse.Namespace, made: Sequence[Made]) -> None:
    files = arguments.kubernetes
    if not files or arguments.only or arguments.together:
        raise Malformed("--out-yaml and --in-place are about all workloads of manifests", expected="--kubernetes FILE")
    if arguments.out_yaml is not None and len(files) != 1:
        raise Malformed("--out-yaml takes one manifest", expected="--in-place for several")
    left = [_annotations(item) for item in made]
    written = []
    for path in files:
        text = decoded(read_file(path), str(path))
        count = insert.count(text)
        changed = insert.insert(text, left[:count], arguments.runtime_class)
        left = left[count:]
        written.append((arguments.out_yaml or path, changed))
    for path, changed in written:
        write_file(path, changed.encode())
