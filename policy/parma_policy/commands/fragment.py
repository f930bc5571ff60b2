# SPDX-License-Identifier: Apache-2.0
"""``parma fragment sign | show | verify | rule``: signed parts of execution policies.

``add_fragment_commands`` plugs them into the ``parma`` command.
"""

from __future__ import annotations

import argparse
import json
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from parma_policy.commands.files import read_file, read_policy, write_file
from parma_wire.errors import Malformed, ParmaError
from parma_wire.limits import MAX_DOCUMENT_BYTES

_MAX_PEM = 1 << 20


def add_fragment_commands(subparsers: Any) -> None:
    """Adds ``fragment`` and what is below it to an ``argparse`` sub-parser collection."""
    fragment = subparsers.add_parser("fragment", help="sign, show and check fragments of execution policies")
    commands = fragment.add_subparsers(dest="fragment_command", required=True, metavar="COMMAND")
    _add_sign(commands)
    _add_show(commands)
    _add_verify(commands)
    _add_rule(commands)


def _add_sign(commands: Any) -> None:
    parser = commands.add_parser(
        "sign",
        help="put a fragment into a signed envelope",
        description="Signs a fragment (COSE_Sign1) after reading it as a guest would. The issuer is a did:x509 that "
        "names the chain's root and what of the signer's certificate identifies it.",
    )
    parser.add_argument("file", type=Path, help="the fragment's Rego text; - for standard input")
    parser.add_argument("--key", type=Path, required=True, metavar="PEM", help="private key, EC or RSA")
    parser.add_argument("--chain", type=Path, required=True, metavar="PEM", help="certificates, the signer's first")
    parser.add_argument("--password-file", type=Path, metavar="FILE", help="the key's password, in the first line")
    parser.add_argument("--feed", required=True, help="what the fragment is about, such as its image's name")
    parser.add_argument("--svn", type=_number, metavar="N", help="security version number for the envelope")
    parser.add_argument("--issuer", metavar="DID", help="the issuer; must hold for the chain")
    parser.add_argument(
        "--predicate",
        default="subject:CN",
        help="what identifies the signer where no issuer is given: subject:CN, eku:OID, ... (%(default)s)",
    )
    parser.add_argument(
        "--algorithm", help="ES256, ES384, ES512, PS256, PS384 or PS512; by default the key's usual one"
    )
    parser.add_argument(
        "--signing-time", type=_time, default="now", metavar="TIME", help="ISO 8601, now, or none (%(default)s)"
    )
    parser.add_argument("--out", type=Path, metavar="FILE", help="where to put it; by default the name and .cose")
    parser.add_argument("--json", action="store_true", help="print an object instead")
    parser.set_defaults(run=run_sign)


def _add_show(commands: Any) -> None:
    parser = commands.add_parser("show", help="say what an envelope holds and whether it is genuine")
    parser.add_argument("file", type=Path, help="the envelope; - for standard input")
    parser.add_argument("--at", type=_time, metavar="TIME", help="judge certificates at this time, not at signing")
    parser.add_argument("--json", action="store_true", help="print an object instead")
    parser.set_defaults(run=run_show)


def _add_verify(commands: Any) -> None:
    parser = commands.add_parser(
        "verify",
        help="check a fragment as a guest would, by a policy or by given terms",
        description="Exit status 0 where a guest would load the fragment, 1 where not, with the reason.",
    )
    parser.add_argument("file", type=Path, help="the envelope; - for standard input")
    parser.add_argument("--policy", type=Path, metavar="REGO", help="the policy that decides; or the terms below")
    parser.add_argument(
        "--trust-list", type=Path, action="append", default=[], metavar="FILE", help="signed, with --policy"
    )
    parser.add_argument("--issuer", metavar="DID", help="the issuer to accept")
    parser.add_argument("--feed", help="the feed to accept")
    parser.add_argument("--minimum-svn", metavar="SVN", help="a whole number or a semantic version")
    parser.add_argument("--at", type=_time, metavar="TIME", help="judge certificates at this time, not at signing")
    parser.add_argument("--json", action="store_true", help="print an object instead")
    parser.set_defaults(run=run_verify)


def _add_rule(commands: Any) -> None:
    parser = commands.add_parser("rule", help="print the element of a policy's 'fragments' that accepts an envelope")
    parser.add_argument("file", type=Path, help="the envelope; - for standard input")
    parser.add_argument("--include", action="append", metavar="LIST", help="instead of every list that it has")
    parser.add_argument("--minimum-svn", metavar="SVN", help="instead of its own")
    parser.set_defaults(run=run_rule)


def run_sign(arguments: argparse.Namespace) -> int:
    """Writes the envelope and prints what a policy has to say to accept it."""
    from parma_policy.signed import authoring

    password = None
    if arguments.password_file:
        password = read_file(arguments.password_file, 4096).partition(b"\n")[0]
    signer = authoring.load_signer(read_file(arguments.key, _MAX_PEM), read_file(arguments.chain, _MAX_PEM), password)
    terms = authoring.FragmentTerms(
        arguments.feed,
        arguments.issuer,
        arguments.predicate,
        arguments.svn,
        arguments.signing_time,
        arguments.algorithm,
    )
    envelope = authoring.sign_fragment(read_policy(arguments.file), signer, terms)
    out = arguments.out or arguments.file.with_name(f"{arguments.file.name}.cose")
    if arguments.out is None and str(arguments.file) == "-":
        raise Malformed("a fragment from standard input has no name", hint="give --out")
    write_file(out, envelope)
    rule = authoring.fragment_rule(envelope)
    if arguments.json:
        _print({"file": str(out), "bytes": len(envelope), "rule": rule})
    else:
        sys.stdout.write(f"{out}: {len(envelope)} bytes\nA policy accepts it with this in its fragments:\n")
        _print(rule)
    return 0


def run_show(arguments: argparse.Namespace) -> int:
    """Prints the description. Exit status 1 for an envelope that is not genuine."""
    from parma_policy.signed import inspection

    found = inspection.describe(read_file(arguments.file, MAX_DOCUMENT_BYTES), at=arguments.at)
    if arguments.json:
        _print(found)
    else:
        sys.stdout.write("".join(f"{line}\n" for line in _description(found)))
    return 0 if found["verified"] and not found["problem"] else 1


def run_verify(arguments: argparse.Namespace) -> int:
    """Prints the decision."""
    from parma_policy.reader import load
    from parma_policy.signed import inspection

    data = read_file(arguments.file, MAX_DOCUMENT_BYTES)
    lists = [read_file(path, MAX_DOCUMENT_BYTES) for path in arguments.trust_list]
    terms = inspection.Wanted(arguments.issuer, arguments.feed, _svn(arguments.minimum_svn))
    if arguments.policy and terms != inspection.Wanted():
        raise Malformed("both a policy and terms are given", expected="one of them")
    if lists and not arguments.policy:
        raise Malformed("a trust list counts by the policy that accepts it", hint="give --policy")
    try:
        policy = load(read_policy(arguments.policy)) if arguments.policy else inspection.policy_wanting(data, terms)
        decision, _ = inspection.judge(data, policy, lists, at=arguments.at)
    except ParmaError as error:
        if not arguments.json:
            raise
        _print({"accepted": False, "reason": str(error)})
        return 1
    message = decision.message()
    if arguments.json:
        _print({"accepted": decision.allowed, "reason": message})
    else:
        sys.stdout.write(f"{message or 'accepted'}\n")
    return 0 if decision.allowed else 1


def run_rule(arguments: argparse.Namespace) -> int:
    """Prints the rule as JSON."""
    from parma_policy.reader.delegated import INCLUDABLE, svn_of
    from parma_policy.signed.authoring import fragment_rule

    includes = tuple(arguments.include) if arguments.include is not None else None
    unknown = sorted(set(includes or ()) - set(INCLUDABLE))
    if unknown:
        raise Malformed(f"a fragment cannot contribute {unknown[0]!r}", expected=", ".join(INCLUDABLE))
    minimum = _svn(arguments.minimum_svn)
    data = read_file(arguments.file, MAX_DOCUMENT_BYTES)
    _print(fragment_rule(data, includes=includes, minimum_svn=None if minimum is None else svn_of(minimum)))
    return 0


def _description(found: dict[str, Any]) -> list[str]:
    lines = [f"{found['kind']}, {'genuine' if found['verified'] else 'NOT VERIFIED'}"]
    if found["problem"]:
        lines.append(f"  {found['problem']}")
    for key in ("issuer", "feed", "svn", "content_type", "algorithm", "signing_time", "package", "text_svn"):
        if found.get(key) is not None:
            lines.append(f"{key.replace('_', ' ') + ':':<14}{found[key]}")
    for certificate in found["certificates"]:
        lines.append(f"{'certificate:':<14}{certificate.get('subject', certificate.get('problem'))}")
        if "sha256" in certificate:
            lines.append(f"{'':<16}sha256 {certificate['sha256']}")
            lines.append(f"{'':<16}valid {certificate['not_before']} to {certificate['not_after']}")
    lines += [f"{'receipt:':<14}{ledger} (not checked here)" for ledger in found["receipts"]]
    lines += [f"{'has:':<14}{count} {name}" for name, count in found.get("lists", {}).items()]
    lines += [f"{'ledger:':<14}{ledger}, {count} keys" for ledger, count in found.get("ledgers", {}).items()]
    return ["".join(character if character.isprintable() else "?" for character in line) for line in lines]


def _print(value: object) -> None:
    sys.stdout.write(json.dumps(value, indent=2) + "\n")


def _number(text: str) -> int:
    try:
        number = int(text)
    except ValueError:
        number = -1
    if not 0 <= number < 1 << 63:
        raise argparse.ArgumentTypeError("not a whole number from 0 on")
    return number


def _svn(text: str | None) -> int | str | None:
    from parma_policy.reader.delegated import svn_of

    if text is None:
        return None
    found = svn_of(text)
    if found is None:
        raise Malformed("the security version is malformed", expected="a whole number or a semantic version")
    return found if isinstance(found, int) else str(found)


def _time(text: str) -> datetime | None:
    if text == "none":
        return None
    if text == "now":
        return datetime.now(UTC).replace(microsecond=0)
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        raise argparse.ArgumentTypeError("not a time in ISO 8601") from None
    return found if found.tzinfo else found.replace(tzinfo=UTC)
