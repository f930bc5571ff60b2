# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import lzma
from pathlib import Path

import pytest

from parma_guest import modules as guest_modules
from parma_image import kernel
from parma_wire.errors import Malformed, NotFound, Unavailable
from tests.image import builders


def _graph(text: str) -> dict[str, tuple[str, ...]]:
    return {name: tuple(rest.split()) for name, _, rest in (line.partition(":") for line in text.split(","))}


def test_every_module_comes_after_what_it_depends_on() -> None:
    graph = _graph("d:b c,c:a,b:a,a:")
    assert kernel.load_order(["d"], graph.__getitem__) == ["a", "b", "c", "d"]


def test_order_is_as_given_where_nothing_depends() -> None:
    graph = _graph("z:,y:,x:y")
    assert kernel.load_order(["z", "x", "y"], graph.__getitem__) == ["z", "y", "x"]


def test_a_cycle_is_refused() -> None:
    with pytest.raises(Malformed, match="depends on itself"):
        kernel.load_order(["a"], _graph("a:b,b:a").__getitem__)


def test_dependencies_are_those_of_symbols_and_those_wanted_first() -> None:
    information = {"depends": ["scsi-mod,crc32c"], "softdep": ["pre: ecb xts-x post: late", "post: never"]}
    assert kernel.dependencies(information, {"crc32c"}) == ("scsi_mod", "ecb", "xts_x")


def test_what_is_built_in_has_other_names_too() -> None:
    modinfo = b"crc32c_generic.alias=crc32c\0crc32c_generic.license=GPL\0x.alias=crypto-x-y\0"
    assert kernel.builtin_aliases(modinfo) == {"crc32c", "crypto_x_y"}


def test_signature_is_taken_off() -> None:
    data = builders.module(["name=a"])
    assert kernel.without_signature(builders.signed(data)) == data
    assert kernel.without_signature(data) == data


def test_a_signature_longer_than_the_file_is_refused() -> None:
    with pytest.raises(Malformed):
        kernel.without_signature(builders.signed(b"")[50:])


def _kernel(root: Path, modules: dict[str, str]) -> kernel.Kernel:
    (root / "boot").mkdir()
    (root / "boot/vmlinuz-1.2").touch()
    folder = root / "usr/lib/modules/1.2"
    (folder / "kernel/drivers").mkdir(parents=True)
    (folder / "modules.builtin").write_text("kernel/crypto/ecb.ko\n")
    (folder / "modules.builtin.modinfo").write_bytes(b"ecb.license=GPL\0ecb.alias=crypto-ecb\0")
    for name, depends in modules.items():
        data = builders.signed(builders.module([f"depends={depends}"]))
        (folder / f"kernel/drivers/{name}.ko.xz").write_bytes(lzma.compress(data))
    return kernel.Kernel.find(root)


def test_modules_of_a_package_are_plain_ordered_and_marked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernel, "REQUIRED", ("sd_mod", "ecb"))
    monkeypatch.setattr(kernel, "CONDITIONAL", {"aesni": "cpu:aes", "sev-guest": "optional"})
    found = _kernel(
        tmp_path,
        {"sd_mod": "scsi_mod,ecb", "scsi_mod": "", "sev-guest": "tsm", "tsm": "", "aesni": "scsi_mod,simd", "simd": ""},
    )
    ordered = kernel.ordered_modules(found)
    assert kernel.modules_list(ordered) == (
        "1.2/kernel/drivers/scsi_mod.ko\n"
        "1.2/kernel/drivers/sd_mod.ko\n"
        "1.2/kernel/drivers/simd.ko cpu:aes\n"
        "1.2/kernel/drivers/aesni.ko cpu:aes\n"
        "1.2/kernel/drivers/tsm.ko optional\n"
        "1.2/kernel/drivers/sev-guest.ko optional\n"
    )
    assert ordered[0].data == builders.module(["depends="])


def test_a_module_that_the_kernel_lacks_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernel, "REQUIRED", ("dm-verity",))
    with pytest.raises(NotFound, match=r"1\.2 has no module dm_verity"):
        kernel.ordered_modules(_kernel(tmp_path, {}))


def test_two_kernels_are_one_too_many(tmp_path: Path) -> None:
    _kernel(tmp_path, {})
    (tmp_path / "boot/vmlinuz-1.3").touch()
    with pytest.raises(Malformed):
        kernel.Kernel.find(tmp_path)


def test_guest_reads_the_list_that_the_builder_writes() -> None:
    conditions = ["", "optional", "cpu:sha_ni", "tee:none"]
    listed = [kernel.Module("a", f"1/kernel/a{index}.ko", b"", text) for index, text in enumerate(conditions)]
    assert guest_modules.parse(kernel.modules_list(listed)) == [
        ("1/kernel/a0.ko", ""),
        ("1/kernel/a1.ko", "optional"),
        ("1/kernel/a2.ko", "cpu:sha_ni"),
        ("1/kernel/a3.ko", "tee:none"),
    ]


def test_modules_for_another_cpu_are_not_tried(tmp_path: Path) -> None:
    (tmp_path / "list").write_text("absent.ko cpu:aes\n")
    (tmp_path / "cpuinfo").write_text("processor\t: 0\nflags\t\t: fpu sse2\n")
    assert guest_modules.load_modules("snp", tmp_path / "list", tmp_path, tmp_path / "cpuinfo") == ["absent"]


def test_modules_for_another_tee_are_not_tried(tmp_path: Path) -> None:
    (tmp_path / "list").write_text("absent.ko tee:none\n")
    assert guest_modules.load_modules("snp", tmp_path / "list", tmp_path) == ["absent"]
    with pytest.raises(Unavailable, match=r"absent\.ko cannot be loaded"):
        guest_modules.load_modules("none", tmp_path / "list", tmp_path)


def test_a_guest_with_a_policy_has_no_bridges() -> None:
    assert kernel.CONDITIONAL["bridge"] == "tee:none"


def test_cpu_flags_are_whole_words() -> None:
    assert guest_modules.cpu_flags("model name: x aes\nflags : vaes fpu\n") == {"vaes", "fpu"}


@pytest.mark.parametrize(
    "line",
    ["/etc/a.ko", "../a.ko", "a.so", "a.ko maybe", "a.ko optional x", "a.ko cpu:", "a.ko cpu:a b", "a.ko tee:", " "],
)
def test_guest_refuses_other_lines(line: str) -> None:
    with pytest.raises(Malformed):
        guest_modules.parse(line + "\n")


def test_a_needed_module_that_cannot_be_loaded_is_named(tmp_path: Path) -> None:
    (tmp_path / "list").write_text("absent.ko\n")
    with pytest.raises(Unavailable, match=r"absent\.ko cannot be loaded"):
        guest_modules.load_modules("snp", tmp_path / "list", tmp_path)
