# SPDX-License-Identifier: Apache-2.0
"""What can be wanted of a genuine report: each wish at its bound, refused with what was wanted and what was found."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from parma_snp import appraise
from parma_snp.appraise import Finding, Subject
from parma_snp.errors import SnpError
from parma_snp.expected import UNCHECKED, Endorser, Expected, default_minimum_tcb
from parma_snp.report import GENOA, MILAN, TURIN, Product, parse
from tests.snp.test_report import make

ANY = "anything"
TCB = bytes((4, 1, 0, 0, 0, 0, 24, 219))
NEWER = bytes((5, 1, 0, 0, 0, 0, 25, 220))
SHOWN = "bl=4 tee=1 snp=24 ucode=219"


def subject(**fields: Any) -> Subject:
    """Of a report whose four TCB versions are the same. ``fields`` are members of `Subject`, the rest as for `make`."""
    product: Product = fields.pop("product", MILAN)
    emulated, csp_id, version = fields.pop("emulated", False), fields.pop("csp_id", None), fields.pop("version", 5)
    good = {"x38": TCB, "x180": TCB, "x1E0": TCB, "x1F0": TCB, "x50": b"R" * 64, "x90": b"M" * 48, "xC0": b"H" * 32}
    return Subject(parse(bytes(make(version, **{**good, **fields}))), product, emulated, csp_id)


def expected(**wishes: Any) -> Expected:
    """What asks for nothing but ``wishes``."""
    return Expected(**{"host_data": UNCHECKED, "measurement": UNCHECKED, "report_data": UNCHECKED, **wishes})


def finding(name: str, found: Subject, wish: Expected) -> Finding:
    (result,) = [result for result in appraise.appraise(found, wish) if result.name == name]
    return result


def passes(name: str, found: Subject, wanted: Any = None, shown: Any = None, **wishes: Any) -> None:
    result = finding(name, found, expected(**wishes))
    assert result.failures == ()
    assert wanted is None or result.wanted == wanted
    assert shown is None or result.found == shown


def refused(name: str, found: Subject, code: str, wanted: str, shown: str, **wishes: Any) -> SnpError:
    """``wanted`` and ``shown`` are what the failure expected and found."""
    (failure,) = finding(name, found, expected(**wishes)).failures
    assert (failure.code, failure.expected, failure.found) == (code, wanted, shown)
    return failure


def test_every_appraisal_is_made_in_a_fixed_order_and_a_good_report_passes() -> None:
    results = appraise.appraise(subject(), expected(min_tcb={}))
    assert tuple(result.name for result in results) == appraise.NAMES
    assert (
        *("freshness", "policy", "measurement", "identifiers", "privilege level", "guest policy", "minimum TCB"),
        *("committed firmware", "platform", "mitigations", "report version", "image owner", "cloud provider"),
    ) == appraise.NAMES
    assert all(not result.failures for result in results)


@pytest.mark.parametrize(
    ("name", "member", "good", "code"),
    [
        ("freshness", "report_data", b"R" * 64, "appraise.report_data"),
        ("policy", "host_data", b"H" * 32, "appraise.host_data"),
        ("measurement", "measurement", b"M" * 48, "appraise.measurement"),
    ],
)
def test_bytes_are_compared_whole(name: str, member: str, good: bytes, code: str) -> None:
    passes(name, subject(), wanted=good.hex(), shown=good.hex(), **{member: good})
    passes(name, subject(), wanted=ANY, shown=good.hex())
    for other in (good[:-1] + b"x", b"x" + good[1:], bytes(len(good))):
        assert refused(name, subject(), code, other.hex(), good.hex(), **{member: other}).hint


def test_one_of_several_measurements_will_do() -> None:
    one, other = b"1" * 48, b"M" * 48
    both = f"{one.hex()} or {other.hex()}"
    passes("measurement", subject(), wanted=both, measurement=(one, other))
    third = b"3" * 48
    wanted = f"{one.hex()} or {third.hex()}"
    refused("measurement", subject(), "appraise.measurement", wanted, other.hex(), measurement=(one, third))
    endorser = Endorser("did:x509:0", "images", 3)
    passes("measurement", subject(), wanted=str(endorser), measurement=endorser)  # judged elsewhere


IDS = {"image_id": ("x20", 16), "family_id": ("x10", 16), "report_id": ("x140", 32), "chip_id": ("x1A0", 64)}


@pytest.mark.parametrize("name", IDS)
def test_identifiers_are_compared_whole(name: str) -> None:
    place, size = IDS[name]
    value, other = b"i" * size, b"i" * (size - 1) + b"j"
    passes("identifiers", subject(**{place: value}), wanted=f"{name.upper()} {value.hex()}", **{name: value})
    failure = refused(
        "identifiers", subject(**{place: value}), f"appraise.{name}", other.hex(), value.hex(), **{name: other}
    )
    assert failure.message == f"{name.upper()} differs"


def test_identifiers_are_shown_whether_wanted_or_not() -> None:
    found = subject(x20=b"i" * 16, x10=b"f" * 16, x140=b"r" * 32, x1A0=b"c" * 64)
    shown = f"IMAGE_ID {b'i'.hex() * 16}, FAMILY_ID {b'f'.hex() * 16}, "
    shown += f"REPORT_ID {b'r'.hex() * 32}, CHIP_ID {b'c'.hex() * 64}"
    passes("identifiers", found, wanted=ANY, shown=shown)
    wanted = f"IMAGE_ID {b'i'.hex() * 16}, CHIP_ID {b'c'.hex() * 64}"
    passes("identifiers", found, wanted=wanted, image_id=b"i" * 16, chip_id=b"c" * 64)


def test_a_short_chip_id_is_that_of_turin_and_the_rest_zero() -> None:
    chip = bytes(range(1, 9))
    passes("identifiers", subject(x1A0=chip), chip_id=chip)
    refused(
        "identifiers",
        subject(x1A0=chip + b"\1"),
        "appraise.chip_id",
        chip.hex(),
        (chip + b"\1").ljust(64, b"\0").hex(),
        chip_id=chip,
    )


def test_the_privilege_level_is_the_one_named() -> None:
    passes("privilege level", subject(), wanted="0", shown="0")
    passes("privilege level", subject(x30=b"\2"), wanted="2", shown="2", vmpl=2)
    refused("privilege level", subject(x30=b"\1"), "appraise.vmpl", "0", "1")
    refused("privilege level", subject(x30=b"\1"), "appraise.vmpl", "2", "1", vmpl=2)


def test_any_privilege_level_is_one_of_a_guest() -> None:
    passes("privilege level", subject(x30=b"\3"), wanted="0..3", vmpl=UNCHECKED)
    refused("privilege level", subject(x30=b"\4"), "appraise.vmpl", "0..3", "4", vmpl=UNCHECKED)
    failure = refused(
        *("privilege level", subject(x30=b"\xff" * 4), "appraise.vmpl", "a VMPL of 0..3", ""), vmpl=UNCHECKED
    )
    assert "the host asked for this report" in failure.message


POLICIES = {
    "appraise.debug": (19, "allow_debug", "DEBUG"),
    "appraise.migrate_ma": (18, "allow_migrate_ma", "MIGRATE_MA"),
    "appraise.smt": (16, "allow_smt", "SMT"),
}


@pytest.mark.parametrize("code", POLICIES)
def test_what_a_guest_policy_permits_must_be_allowed(code: str) -> None:
    bit, permission, name = POLICIES[code]
    policy = 1 << 17 | 1 << bit
    found = subject(x8=policy.to_bytes(8, "little"))
    strict = {"allow_debug": False, "allow_migrate_ma": False, "allow_smt": False}
    refused("guest policy", found, code, f"guest policy bit {bit} clear", f"{policy:#x}", **strict)
    passes("guest policy", found, shown=f"{policy:#x}", **{**strict, permission: True})
    none = subject(x8=(1 << 17).to_bytes(8, "little"))
    passes("guest policy", none, wanted="no DEBUG, no MIGRATE_MA, no SMT", **strict)
    left = ", ".join(f"no {other}" for _, _, other in POLICIES.values() if other != name)
    passes("guest policy", none, wanted=left, **{**strict, permission: True})


def test_only_smt_is_permitted_unless_said_otherwise() -> None:
    passes("guest policy", subject(), wanted="no DEBUG, no MIGRATE_MA")
    passes("guest policy", subject(), wanted=ANY, allow_debug=True, allow_migrate_ma=True)


def test_a_single_socket_may_be_demanded() -> None:
    single, any_number = (policy.to_bytes(8, "little") for policy in (0x120000, 0x020000))
    wanted = "no DEBUG, no MIGRATE_MA, SINGLE_SOCKET"
    passes("guest policy", subject(x8=single), wanted=wanted, require_single_socket=True)
    passes("guest policy", subject(x8=any_number))
    (failure,) = finding("guest policy", subject(x8=any_number), expected(require_single_socket=True)).failures
    assert (failure.code, failure.found) == ("appraise.policy", "0x20000")


def test_the_guest_policy_must_demand_firmware_that_is_new_enough() -> None:
    found = subject(x8=bytes.fromhex("1f01030000000000"))
    wanted = "no DEBUG, no MIGRATE_MA, firmware ABI 1.31 or later"
    passes("guest policy", found, wanted=wanted, min_abi=(1, 31))
    passes("guest policy", found, min_abi=(0, 99))
    refused("guest policy", found, "appraise.abi", "1.32 or later", "1.31", min_abi=(1, 32))
    refused("guest policy", found, "appraise.abi", "2.0 or later", "1.31", min_abi=(2, 0))


@pytest.mark.parametrize("component", ["bl", "tee", "snp", "ucode"])
def test_each_patch_level_counts_by_itself(component: str) -> None:
    level = dict(part.split("=") for part in SHOWN.split())[component]
    least = int(level)
    passes("minimum TCB", subject(), wanted=f"reported {component}>={least}", min_tcb={component: least})
    refused(
        "minimum TCB", subject(), "appraise.min_tcb", f"at least {least + 1}", level, min_tcb={component: least + 1}
    )


@pytest.mark.parametrize(
    ("which", "wish", "place", "code"),
    [
        ("reported", "min_tcb", "x180", "appraise.min_tcb"),
        ("committed", "min_committed_tcb", "x1E0", "appraise.min_tcb"),
        ("launch", "min_launch_tcb", "x1F0", "appraise.min_launch_tcb"),
    ],
)
def test_each_of_the_three_versions_has_its_minimum(which: str, wish: str, place: str, code: str) -> None:
    wishes = {"min_tcb": {}, "allow_provisional": True, wish: {"snp": 25}}
    newer = subject(**{place: NEWER})
    passes("minimum TCB", newer, wanted=f"{which} snp>=25", **wishes)
    failure = refused("minimum TCB", subject(), code, "at least 25", "24", **wishes)
    assert failure.message == f"the {which} snp patch level is too low"
    assert failure.hint == "the host must update its firmware"


def test_what_a_product_lacks_is_too_low() -> None:
    refused("minimum TCB", subject(), "appraise.min_tcb", "at least 0", "none", min_tcb={"fmc": 0})
    turin = subject(product=TURIN, x180=bytes((1, 2, 3, 4, 0, 0, 0, 5)))
    passes("minimum TCB", turin, wanted="reported fmc>=1", min_tcb={"fmc": 1})


def test_patch_levels_are_shown_and_none_is_asked_for_by_an_empty_wish() -> None:
    shown = f"reported {SHOWN}; committed {SHOWN}; launch bl=5 tee=1 snp=25 ucode=220"
    passes("minimum TCB", subject(x1F0=NEWER), wanted=ANY, shown=shown, min_tcb={})


@pytest.mark.parametrize(("product", "least"), [(MILAN, 24), (GENOA, 23)])
def test_without_a_wish_the_table_counts(product: Product, least: int) -> None:
    dated = f" (table of {default_minimum_tcb().reviewed})"
    levels = bytes((4, 1, 0, 0, 0, 0, least, 219))
    passes("minimum TCB", subject(product=product, x180=levels), wanted=f"reported snp>={least}{dated}")
    low = bytes((4, 1, 0, 0, 0, 0, least - 1, 219))
    found = subject(product=product, x180=low)
    refused("minimum TCB", found, "appraise.min_tcb", f"at least {least}", str(least - 1))


def test_a_product_that_the_table_lacks_needs_a_wish() -> None:
    found = subject(product=TURIN, x180=bytes((1, 2, 3, 4, 0, 0, 0, 5)))
    wanted = "one that you choose, from AMD's security bulletins"
    failure = refused("minimum TCB", found, "appraise.min_tcb", wanted, "fmc=1 bl=2 tee=3 snp=4 ucode=5")
    assert failure.hint == "name the lowest that you accept: --min-tcb snp=N,ucode=N"
    assert "a minimum of your choice" in finding("minimum TCB", found, expected()).wanted
    passes("minimum TCB", found, wanted="reported ucode>=5", min_tcb={"ucode": 5})


def test_an_emulated_processor_has_no_levels_to_ask_for_unless_by_name() -> None:
    none = subject(product=TURIN, emulated=True, x180=bytes(8))
    passes("minimum TCB", none, wanted=ANY)
    refused("minimum TCB", none, "appraise.min_tcb", "at least 1", "0", min_tcb={"snp": 1})


def test_firmware_that_can_be_rolled_back_must_be_allowed() -> None:
    version, newer = b"\x41\x37\x01", b"\x42\x37\x01"
    good = subject(x1E8=version, x1EC=version)
    passes("committed firmware", good, "current equals committed", "current 1.55.65, committed 1.55.65")
    rolled = subject(x1E8=newer, x1EC=version)
    wanted, shown = f"1.55.66 committed ({SHOWN})", f"1.55.65 ({SHOWN})"
    refused("committed firmware", rolled, "appraise.provisional", wanted, shown)
    passes("committed firmware", rolled, ANY, "current 1.55.66, committed 1.55.65", allow_provisional=True)
    levels = subject(x1E8=version, x1EC=version, x38=NEWER)
    wanted = "1.55.65 committed (bl=5 tee=1 snp=25 ucode=220)"
    refused("committed firmware", levels, "appraise.provisional", wanted, f"1.55.65 ({SHOWN})")


def test_bits_of_the_platform_are_required_or_forbidden_each_by_itself() -> None:
    found = subject(x40=b"\x06")
    passes("platform", found, "bits 0x0 set, 0x0 clear", "0x6")
    passes("platform", found, "bits 0x6 set, 0x9 clear", platform_info_required=6, platform_info_forbidden=9)
    wanted = "bits 0x7 set, 0x0 clear"
    refused("platform", found, "appraise.platform_info", wanted, "0x6", platform_info_required=7)
    wanted = "bits 0x0 set, 0x2 clear"
    refused("platform", found, "appraise.platform_info", wanted, "0x6", platform_info_forbidden=2)


def test_mitigations_at_launch_may_be_required() -> None:
    found, old = subject(x1F8=b"\6"), subject(version=4)
    passes("mitigations", found, ANY, "0x6")
    passes("mitigations", found, "0x2", "0x6", launch_mitigations_required=2)
    refused("mitigations", found, "appraise.mit_vector", "0x3", "0x6", launch_mitigations_required=3)
    none = "none (report before version 5)"
    passes("mitigations", old, ANY, none)
    for required in (1, 2):
        refused("mitigations", old, "appraise.mit_vector", f"{required:#x}", none, launch_mitigations_required=required)


def test_a_report_must_be_of_the_least_version() -> None:
    passes("report version", subject(version=3), "3 or later", "3", min_report_version=3)
    passes("report version", subject(version=2), "2 or later", "2")
    refused(
        "report version", subject(version=3), "appraise.min_report_version", "at least 4", "3", min_report_version=4
    )


ID_KEY, AUTHOR = b"K" * 48, b"A" * 48
OWNED: Mapping[str, bytes] = {"x4": b"\7", "xE0": ID_KEY, "x110": AUTHOR, "x48": b"\1"}


def test_the_owners_version_must_be_high_enough() -> None:
    found = subject(**OWNED)
    shown = f"GUEST_SVN 7, ID_KEY_DIGEST {ID_KEY.hex()}"
    passes("image owner", found, ANY, shown)
    passes("image owner", found, "GUEST_SVN 7 or later", shown, min_guest_svn=7)
    refused("image owner", found, "appraise.guest_svn", "at least 8", "7", min_guest_svn=8)


def test_the_owner_must_be_one_of_those_named() -> None:
    found = subject(**OWNED)
    passes("image owner", found, "one of the named ID keys", id_key_digests=(b"x" * 48, ID_KEY))
    passes("image owner", found, "an author key", author_key_digests=(b"x" * 48, AUTHOR))
    (failure,) = finding("image owner", found, expected(id_key_digests=(AUTHOR,))).failures
    assert (failure.code, failure.found) == ("appraise.id_key", ID_KEY.hex())
    (failure,) = finding("image owner", found, expected(author_key_digests=(ID_KEY,))).failures
    assert (failure.code, failure.found) == ("appraise.author_key", AUTHOR.hex())


def test_an_author_key_counts_only_where_it_is_enabled() -> None:
    found = subject(**{**OWNED, "x48": b"\0"})
    passes("image owner", subject(**OWNED), "an author key", require_author_key=True)
    for wish in ({"require_author_key": True}, {"author_key_digests": (AUTHOR,)}):
        (failure,) = finding("image owner", found, expected(**wish)).failures
        assert failure.code == "appraise.author_key"
    wanted = "GUEST_SVN 1 or later, one of the named ID keys, an author key"
    passes(
        *("image owner", subject(**OWNED), wanted), min_guest_svn=1, id_key_digests=(ID_KEY,), require_author_key=True
    )


def test_a_cloud_providers_key_is_accepted_by_name_with_or_without_its_prefix() -> None:
    chip, cloud = subject(), subject(csp_id="CN=cloud")
    passes("cloud provider", chip, "a VCEK", "a VCEK")
    refused("cloud provider", cloud, "appraise.vlek_not_allowed", "a VCEK", "CN=cloud")
    wanted = "a VCEK or a VLEK of other or a VLEK of cloud"
    passes("cloud provider", cloud, wanted, "CN=cloud", vlek_csp_ids=("other", "cloud"))
    passes("cloud provider", cloud, vlek_csp_ids=("CN=cloud",))
    passes("cloud provider", subject(csp_id="cloud"), vlek_csp_ids=("CN=cloud",))
    passes("cloud provider", cloud, ANY, "CN=cloud", vlek_csp_ids=UNCHECKED)
    wanted = "a VCEK or a VLEK of clouds"
    refused("cloud provider", cloud, "appraise.vlek_not_allowed", wanted, "CN=cloud", vlek_csp_ids=("clouds",))
