# SPDX-License-Identifier: Apache-2.0
"""Where images come from, and what is known of their layers."""

from __future__ import annotations

import io
import json
import os
from pathlib import Path

import pytest

from parma_policy.generate.hashing import LayerReader, user_cache
from parma_policy.generate.library import Library, Places
from parma_policy.generate.progress import TerminalBar
from parma_policy.generate.references import Reference
from parma_policy.generate.registry import Registry
from parma_policy.images import in_archive
from parma_policy.layers.convert import root_hash
from parma_wire.errors import Malformed, NotFound, Unavailable, Unverified
from tests.policy.generate.builders import BASE, TOP, app_image, archive, layer_tar, write_oci

HEX = "a" * 64


@pytest.mark.parametrize(
    ("text", "full"),
    [
        ("nginx", "docker.io/library/nginx:latest"),
        ("nginx:1.27", "docker.io/library/nginx:1.27"),
        ("team/app", "docker.io/team/app:latest"),
        ("docker.io/nginx", "docker.io/library/nginx:latest"),
        ("index.docker.io/library/nginx", "docker.io/library/nginx:latest"),
        ("example.org/app", "example.org/app:latest"),
        ("localhost/app:1", "localhost/app:1"),
        ("example.org:5000/a/b-c__d:v1", "example.org:5000/a/b-c__d:v1"),
        (f"app@sha256:{HEX}", f"docker.io/library/app@sha256:{HEX}"),
        (f"app:1@sha256:{HEX}", f"docker.io/library/app:1@sha256:{HEX}"),
    ],
)
def test_names_of_images_are_completed(text: str, full: str) -> None:
    assert str(Reference.parse(text)) == full
    assert full in Reference.parse(text).spellings()
    assert Reference.parse(full) == Reference.parse(text)


@pytest.mark.parametrize(
    "text",
    ["", "UPPER", "a b", "app:", "app:a b", "app@", "app@sha256:1", "app@md5:x", "/app", "a//b", "../x", "a" * 600],
)
def test_what_is_no_name_of_an_image(text: str) -> None:
    with pytest.raises(Malformed, match="not the name of an image"):
        Reference.parse(text)


def library(*archives: Path, **named: Path) -> Library:
    return Library(Places(named=named, archives=archives), LayerReader(None, processes=0))


def test_images_are_found_in_archives_by_any_spelling(tmp_path: Path) -> None:
    first = app_image(tmp_path / "first.tar", reference="docker.io/library/one:1", Cmd=["first"])
    second = app_image(tmp_path / "second.tar", reference="docker.io/library/two:latest", Cmd=["second"])
    both = library(first, second)
    for name, command in (("one:1", "first"), ("docker.io/one:1", "first"), ("two", "second")):
        assert both.image(name).texts("Cmd") == (command,)
    with pytest.raises(NotFound, match=r"image docker\.io/library/one:2 is not there") as caught:
        both.image("one:2")
    assert str(first) in str(caught.value)
    assert "--pull" in str(caught.value)


def test_a_named_file_wins_whatever_its_image_is_called(tmp_path: Path) -> None:
    path = archive(tmp_path / "image.tar", [BASE])
    found = Library(Places(named={"app:9": path}), LayerReader(None, processes=0))
    with pytest.raises(NotFound, match="no container uses"):
        found.check_all_used()
    assert found.image("docker.io/library/app:9").texts("Cmd") == ("/app",)
    found.check_all_used()


def test_a_digest_is_checked(tmp_path: Path) -> None:
    path = tmp_path / "app.tar"
    digest = write_oci(path, [BASE], {"Cmd": ["x"]}, "docker.io/library/app:1")
    assert library(path).image(f"app:1@{digest}").layers
    assert library(path).image(f"app@{digest}").layers
    with pytest.raises(NotFound):
        library(path).image(f"app@sha256:{HEX}")
    named = Library(Places(named={f"app:1@sha256:{HEX}": path}), LayerReader(None, processes=0))
    with pytest.raises(Unverified, match="another digest"):
        named.image(f"app:1@sha256:{HEX}")
    docker = archive(tmp_path / "docker.tar", [BASE])
    named = Library(Places(named={f"app@{digest}": docker}), LayerReader(None, processes=0))
    with pytest.raises(Unverified, match="cannot show"):
        named.image(f"app@{digest}")


def test_without_skopeo_a_registry_is_a_clear_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    pulling = Library(Places(pull=True), LayerReader(None, processes=0))
    with pytest.raises(NotFound, match=r"skopeo is not there to fetch docker\.io/library/app:1"):
        pulling.image("app:1")


def test_an_image_is_fetched_once_by_digest_or_tag_and_removed_again(tmp_path: Path) -> None:
    app = tmp_path / "app.tar"
    digest = write_oci(app, [BASE], {"Cmd": ["fetched"]}, "x")
    program = tmp_path / "fake-skopeo"
    log = tmp_path / "log"
    # The destination is oci:DIRECTORY:image; a layout is what an archive unpacks to.
    program.write_text(
        f'#!/bin/sh\necho "$@" >> {log}\nfor last; do :; done\n'
        "directory=${last#oci:}\ndirectory=${directory%:image}\n"
        f"mkdir -p $directory && tar -xf {app} -C $directory\n"
    )
    program.chmod(0o755)
    pulling = Library(Places(pull=True), LayerReader(None, processes=0), Registry(str(program)))
    assert pulling.image(f"example.org/app:1@{digest}").texts("Cmd") == ("fetched",)
    assert pulling.image(f"example.org/app:1@{digest}").texts("Cmd") == ("fetched",)
    (line,) = log.read_text().splitlines()
    assert f"docker://example.org/app@{digest}" in line
    assert "--multi-arch=all" in line
    directory = Path(line.rsplit("oci:", 1)[1].removesuffix(":image"))
    assert directory.exists()
    pulling.close()
    assert not directory.parent.exists()


def test_what_skopeo_says_is_told(tmp_path: Path) -> None:
    program = tmp_path / "fake-skopeo"
    program.write_text("#!/bin/sh\necho unauthorized: who are you >&2\nexit 1\n")
    program.chmod(0o755)
    registry = Registry(str(program))
    with pytest.raises(Unavailable, match="unauthorized"):
        registry.fetch(Reference.parse("app"))
    registry.close()


# -- layers ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("processes", [0, 2])
def test_layers_are_read_in_one_process_or_in_several(
    tmp_path: Path, processes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("parma_policy.generate.hashing._SMALL", 0)
    terminal = io.StringIO()
    large = layer_tar([("data", os.urandom(9 << 20))])
    path = archive(tmp_path / "image.tar", [BASE, TOP, large, BASE])
    reader = LayerReader(None, processes=processes, bar=TerminalBar(terminal))
    facts = reader(in_archive(path).layers)
    assert [layer.root_hash for layer in facts] == [root_hash(io.BytesIO(data)) for data in (BASE, TOP, large, BASE)]
    assert facts[0].accounts["etc/group"] == b"g:x:7:app\n"
    assert facts[1].accounts == {}
    drawn = terminal.getvalue()
    assert "layers 0/3" in drawn
    assert "layers 3/3" in drawn
    assert drawn.endswith("\r\x1b[K")


@pytest.mark.parametrize("processes", [0, 2])
def test_an_error_in_a_layer_is_told_and_nothing_is_kept(
    tmp_path: Path, processes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("parma_policy.generate.hashing._SMALL", 0)
    path = archive(tmp_path / "image.tar", [BASE], lie=True)
    with pytest.raises(Unverified, match="not what its configuration says"):
        LayerReader(tmp_path / "cache", processes=processes)(in_archive(path).layers)
    assert not list((tmp_path / "cache").glob("*"))


def test_what_is_known_of_a_layer_is_kept_by_diff_id(tmp_path: Path) -> None:
    path = archive(tmp_path / "image.tar", [BASE, TOP])
    cache = tmp_path / "cache"
    layers = in_archive(path).layers
    first = LayerReader(cache, processes=0)(layers)
    assert sorted(file.stem for file in cache.iterdir()) == sorted(layer.diff_id[7:] for layer in layers)
    assert cache.stat().st_mode & 0o777 == 0o700
    path.unlink()  # a second time nothing is read
    assert LayerReader(cache, processes=0)(layers) == first


@pytest.mark.parametrize("damage", ["", "{", "{}", "[]", '{"format": 1}', '{"format": 0}', "null"])
def test_a_damaged_record_is_made_again(tmp_path: Path, damage: str) -> None:
    layers = in_archive(archive(tmp_path / "image.tar", [BASE])).layers
    first = LayerReader(tmp_path / "cache", processes=0)(layers)
    (record,) = (tmp_path / "cache").iterdir()
    good = record.read_text()
    record.write_text(damage)
    assert LayerReader(tmp_path / "cache", processes=0)(layers) == first
    assert record.read_text() == good
    record.write_text(json.dumps({**json.loads(good), "diff_id": "sha256:" + HEX}))
    assert LayerReader(tmp_path / "cache", processes=0)(layers) == first


def test_a_cache_that_cannot_be_written_is_done_without(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    layers = in_archive(archive(tmp_path / "image.tar", [BASE])).layers
    assert LayerReader(tmp_path / "file/cache", processes=0)(layers)


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({"XDG_CACHE_HOME": "/c"}, "/c/parma/layers"),
        ({"HOME": "/h"}, "/h/.cache/parma/layers"),
        ({"XDG_CACHE_HOME": "relative", "HOME": "/h"}, "/h/.cache/parma/layers"),
        ({}, None),
    ],
)
def test_the_cache_is_in_the_users_directory(
    environment: dict[str, str], expected: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("XDG_CACHE_HOME", "HOME"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert user_cache() == (None if expected is None else Path(expected))
