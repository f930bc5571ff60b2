# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from parma_image import debian, prefix
from parma_wire.errors import Malformed, NotFound, ParmaError, Unavailable, Unsupported

_MIRROR = debian.Mirror("http://m/debian/", "http://m/security/", Path("/keys.gpg"))


def test_every_source_is_signed_by_the_debian_keyring() -> None:
    for suite in debian.SUITES:
        stanzas = debian.sources(suite, _MIRROR).strip().split("\n\n")
        assert all("Signed-By: /keys.gpg" in stanza for stanza in stanzas)


def test_security_updates_come_from_the_security_mirror() -> None:
    main, security = debian.sources("trixie", _MIRROR).split("\n\n")
    assert "URIs: http://m/debian/\nSuites: trixie trixie-updates\n" in main
    assert "URIs: http://m/security/\nSuites: trixie-security\n" in security


def test_a_host_without_security_source_is_not_given_one() -> None:
    assert "security" not in debian.sources("trixie", debian.Mirror("http://m/", None, Path("/k")))


def test_proxy_and_time_checks_are_inherited_and_hooks_are_not() -> None:
    dump = (
        'Acquire::http::Proxy "http://p";\nAcquire::Check-Date "false";\n'
        'Acquire::AllowInsecureRepositories "true";\n'
        'APT::Update::Post-Invoke:: "rm -f /var/cache/apt/archives/*.deb";\nDir::Cache::pkgcache "";\n'
    )
    text = debian.configuration(Path("/w"), dump)
    assert 'Acquire::http::Proxy "http://p";' in text
    assert 'Acquire::Check-Date "false";' in text
    assert "Post-Invoke" not in text
    assert 'Acquire::AllowInsecureRepositories "true"' not in text
    assert 'Dir::State::status "/w/status";' in text


def test_an_unknown_suite_is_refused_before_anything_runs(tmp_path: Path) -> None:
    with pytest.raises(Malformed, match="woody"):
        debian.DebianArchive(tmp_path).fetch("woody", ["crun"])


def test_a_machine_without_apt_is_told_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nonexistent")
    with pytest.raises(Unavailable, match="apt-get is not installed"):
        debian.host_mirror()


def _fake_apt(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str) -> None:
    tools = tmp_path / "tools"
    tools.mkdir()
    for name in ("apt-get", "apt-cache", "apt-config"):
        (tools / name).write_text(f"#!/bin/sh\n{script}\n")
        (tools / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{tools}:/usr/bin:/bin")


_TARGETS = 'case "$*" in *indextargets*) echo "Packages main trixie http://m/debian/"; exit;; *dump*) exit;; '


def test_without_a_network_the_error_says_what_apt_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _fake_apt(tmp_path, monkeypatch, _TARGETS + '*) echo "E: Could not resolve m" >&2; exit 100;; esac')
    with pytest.raises(Unavailable, match=r"package lists of trixie could not be read.*Could not resolve m.*hint"):
        debian.DebianArchive(tmp_path / "work").fetch("trixie", ["crun"])


def test_an_unknown_package_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _fake_apt(tmp_path, monkeypatch, _TARGETS + '*) echo "N: Unable to locate package nope" >&2; exit 0;; esac')
    with pytest.raises(NotFound, match="no nope in trixie"):
        debian.DebianArchive(tmp_path / "work").fetch("trixie", ["nope"])


def test_a_download_with_another_hash_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    script = (
        _TARGETS
        + '*show*) printf "Package: crun\\nVersion: 1\\nArchitecture: amd64\\nSize: 3\\nSHA256: '
        + "ab" * 32
        + '\\n";;'
        " *download*) echo xy > crun_1_amd64.deb;; esac"
    )
    _fake_apt(tmp_path, monkeypatch, script)
    with pytest.raises(Unavailable, match=r"crun_1_amd64\.deb is not the package"):
        debian.DebianArchive(tmp_path / "work").fetch("trixie", ["crun"])


def test_a_machine_with_other_sources_only_is_told_what_is_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _fake_apt(tmp_path, monkeypatch, 'echo "Packages main noble http://elsewhere/"')
    with pytest.raises(NotFound, match="no Debian mirror"):
        debian.host_mirror()


def test_a_broken_package_is_reported(tmp_path: Path) -> None:
    (tmp_path / "x.deb").write_bytes(b"no package")
    with pytest.raises(ParmaError, match="dpkg-deb"):
        debian.unpack([debian.Deb("x", "1", "amd64", tmp_path / "x.deb", "", 0)], tmp_path / "out")


def test_the_hosts_release_is_read_from_os_release(tmp_path: Path) -> None:
    (tmp_path / "os").write_text('ID=debian\nVERSION_CODENAME="trixie"\n')
    assert prefix.host_codename(tmp_path / "os") == "trixie"
    (tmp_path / "os").write_text("ID=ubuntu\nVERSION_CODENAME=noble\n")
    assert prefix.host_codename(tmp_path / "os") == ""


def test_the_prefix_is_refused_on_other_systems(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prefix, "host_codename", lambda: "")
    with pytest.raises(Unsupported, match="Debian 12 or 13"):
        prefix.install_prefix(debian.DebianArchive(tmp_path), tmp_path / "prefix")


def test_a_current_prefix_is_left_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prefix, "host_codename", lambda: "trixie")
    monkeypatch.setattr(prefix, "_unpack_all", lambda *_: pytest.fail("unpacked again"))
    digest = hashlib.sha256(Path(prefix.__file__).read_bytes()).hexdigest()
    (tmp_path / "made-by").write_text(f"trixie {digest}\n")
    assert prefix.install_prefix(debian.DebianArchive(tmp_path), tmp_path).qemu == tmp_path / "bin/qemu-system-x86_64"
