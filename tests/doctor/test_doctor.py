# SPDX-License-Identifier: Apache-2.0
"""`parma doctor`: each check on its own, on facts of machines; then on whole trees of files and on this machine."""

from __future__ import annotations

import json
import ssl
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

from parma_shim.cli import main
from parma_shim.config import Config
from parma_shim.doctor import cli, containerd, tee, tools
from parma_shim.doctor.host import Process, Surroundings, ThisHost
from parma_shim.vm.image import GuestImage, ImageFile
from parma_snp.checks import Check, run_all
from parma_wire.errors import NotFound
from tests.vm.support import image as guest_image
from tests.vm.support import write_image

V2 = '[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.parma]\n'
V3 = '[plugins."io.containerd.cri.v1.runtime".containerd.runtimes.parma]\n'
RUNTIME = (
    'runtime_type = "io.containerd.parma.v2"\n'
    'pod_annotations = ["io.parma.*"]\ncontainer_annotations = ["io.parma.*"]\n'
)
CONFIG = Config(
    qemu=Path("/usr/bin/qemu-system-x86_64"), python=Path("/usr/bin/python3"), certificates=Path("/etc/vcek.pem")
)
ROOT = Path(__file__).resolve().parents[2]
# AMD's own certificates are as good as any for being read.
CERTIFICATE = ssl.DER_cert_to_PEM_cert((ROOT / "snp/parma_snp/data/ask_milan.der").read_bytes()) * 3
CONFIG_FILE = "/etc/containerd/config.toml"
PROBES = (*tools.PROBES, *tee.SNP_PROBES, *tee.EMULATED_PROBES, *containerd.PROBES)


@dataclass(frozen=True)
class FakeHost:
    """A host with containerd 2.1 on which everything is as it should be, unless told otherwise."""

    config: Config = CONFIG
    texts: dict[str, str] = field(
        default_factory=lambda: {
            CONFIG_FILE: f"version = 3\n{V3}{RUNTIME}",
            "/etc/vcek.pem": CERTIFICATE,
            "/sys/fs/cgroup/cgroup.controllers": "cpu memory\n",
        }
    )
    devices: dict[str, str] = field(default_factory=lambda: {"/dev/vhost-vsock": "", "/dev/kvm": ""})
    programs: tuple[str, ...] = (
        *("/usr/bin/qemu-system-x86_64", "/usr/bin/setpriv", "/usr/bin/containerd"),
        "/usr/local/bin/containerd-shim-parma-v2",
    )
    directories: dict[str, bool] = field(
        default_factory=lambda: dict.fromkeys(("/", "/run", "/var/lib", "/etc/parma/policies"), True)
    )
    outputs: dict[str, str | None] = field(
        default_factory=lambda: {
            "/usr/bin/containerd": "containerd github.com/containerd/containerd/v2 2.1.4 75cb2b7\n",
            "/usr/bin/python3": "\n",
        }
    )
    containerd: Process | None = None
    guest: GuestImage | None = field(default_factory=lambda: guest_image(Path("/image")))
    hashes: str | None = "00" * 32

    def text(self, path: str) -> str | None:
        return self.texts.get(path)

    def data(self, path: str) -> bytes | None:
        text = self.texts.get(path)
        return None if text is None else text.encode()

    def matching(self, pattern: str) -> list[str]:
        prefix = pattern.partition("*")[0]
        return sorted(path for path in self.texts if path.startswith(prefix) and path != CONFIG_FILE)

    def openable(self, path: str) -> str | None:
        return self.devices.get(path)

    def executable(self, path: str) -> bool:
        return path in self.programs

    def writable(self, path: str) -> bool | None:
        return self.directories.get(path)

    def run(self, argv: Sequence[str]) -> str | None:
        return self.outputs.get(argv[0])

    def process(self, name: str) -> Process | None:
        assert name == "containerd"
        return self.containerd

    def image(self) -> GuestImage:
        if self.guest is None:
            raise NotFound("no guest image in /image")
        return self.guest

    def sha256(self, file: ImageFile) -> str | None:
        assert file.path
        return self.hashes


GOOD = FakeHost()


def check_of(host: FakeHost, name: str) -> Check:
    probe = next(probe for probe in PROBES if probe.id == name)
    return probe.run(host)


def test_good_host_has_nothing_to_complain_about() -> None:
    unusual = {"snp.id_block", "emulated.protection"}
    complaints = [check for check in run_all(PROBES, GOOD) if check.status != "ok" and check.id not in unusual]
    assert complaints == []


def texts(content: str, **more: str) -> dict[str, dict[str, str]]:
    return {"texts": {CONFIG_FILE: content, **more}}


@pytest.mark.parametrize(
    ("change", "name", "status", "words"),
    [
        ({"programs": ()}, "tools.qemu", "fail", "/usr/bin/qemu-system-x86_64"),
        ({"programs": ()}, "tools.setpriv", "fail", "/usr/bin/setpriv"),
        ({"devices": {}}, "tools.vsock", "fail", "neither /dev/vhost-vsock nor"),
        ({"devices": {"/dev/vhost-vsock": "Permission denied"}}, "tools.vsock", "fail", "Permission denied"),
        ({"devices": {}, "programs": ("/usr/bin/vhost-device-vsock",)}, "tools.vsock", "warn", "takes its place"),
        ({"outputs": {}}, "tools.python", "fail", "does not run"),
        ({"outputs": {"/usr/bin/python3": "grpc cbor2\n"}}, "tools.python", "fail", "cannot import grpc, cbor2"),
        ({"guest": None}, "image.manifest", "fail", "no guest image in /image"),
        ({"guest": None}, "image.measurements", "skip", "no guest image"),
        ({"hashes": "11" * 32}, "image.manifest", "fail", "/image/vmlinuz"),
        ({"hashes": None}, "image.manifest", "fail", "/image/vmlinuz"),
        ({"config": GOOD.config._replace(tee="emulated", vcpus=3)}, "image.measurements", "warn", "1, 2, 4"),
        ({"config": GOOD.config._replace(tee="other")}, "image.measurements", "fail", "no measurement"),
        ({"directories": {"/": False}}, "host.directories", "fail", "cannot be written"),
        ({"directories": {"/": True}}, "host.directories", "ok", "/run/parma"),
        ({"directories": {"/": True}}, "host.policies", "warn", "/etc/parma/policies"),
        ({"texts": {}}, "host.cgroups", "warn", "first version"),
        ({"texts": {}}, "snp.certificates", "fail", "/etc/vcek.pem cannot be read"),
        ({"texts": {"/etc/vcek.pem": "-----BEGIN CERTIFICATE-----"}}, "snp.certificates", "fail", "not a PEM"),
        ({"config": CONFIG._replace(certificates=None)}, "snp.certificates", "fail", "is not set"),
        (
            {"config": CONFIG._replace(certificates=None, attestation="reported")},
            "snp.certificates",
            "warn",
            "attestation = reported",
        ),
        ({"config": GOOD.config._replace(id_block=Path("/etc/id.json"))}, "snp.id_block", "fail", "/etc/id.json"),
        ({"devices": {}}, "emulated.accelerator", "warn", "/dev/kvm"),
        ({"config": GOOD.config._replace(accelerator="tcg")}, "emulated.accelerator", "ok", "as configured"),
        ({"programs": ()}, "containerd.version", "warn", "no program containerd"),
        ({"outputs": {"/usr/bin/containerd": "containerd 1.6.33 d2d58213"}}, "containerd.version", "fail", "1.6.33"),
        (
            {"containerd": Process(["containerd"], ["/opt/bin"])},
            "containerd.shim",
            "fail",
            "containerd's PATH, /opt/bin",
        ),
        ({"texts": {}}, "containerd.config", "skip", "cannot be read"),
        (texts("version = "), "containerd.config", "fail", CONFIG_FILE),
        (texts("version = 3\n"), "containerd.config", "warn", "no runtime of Parma"),
        (texts(f"version = 3\n{V2}{RUNTIME}"), "containerd.config", "fail", "belongs under io.containerd.cri.v1"),
        (texts(f"version = 2\n{V3}{RUNTIME}"), "containerd.config", "fail", "belongs under io.containerd.grpc.v1"),
        (texts(f"version = 2\n{V2}{RUNTIME}"), "containerd.config", "ok", "version = 2"),
        (texts(f"version = 4\n{V3}{RUNTIME}"), "containerd.config", "ok", "version = 4"),
        (
            texts(f"version = 3\n{V3}" + RUNTIME.replace("parma.v2", "parma.v1")),
            "containerd.config",
            "fail",
            "io.containerd.parma.v1",
        ),
        (
            texts(f"version = 3\n{V3}" + RUNTIME.replace("container_annotations", "annotations")),
            "containerd.config",
            "fail",
            "container_annotations",
        ),
        (
            texts(
                f'version = 3\n{V3}{RUNTIME}[plugins."io.containerd.cri.v1.images"]\ndiscard_unpacked_layers = true\n'
            ),
            "containerd.config",
            "fail",
            "discard_unpacked_layers",
        ),
        (
            texts(
                'version = 3\nimports = ["/etc/containerd/conf.d/*.toml"]\n',
                **{"/etc/containerd/conf.d/parma.toml": V3 + RUNTIME},
            ),
            "containerd.config",
            "ok",
            "runtime parma",
        ),
        (
            {
                **texts(f"version = 3\n{V3}{RUNTIME}"),
                "outputs": {"/usr/bin/containerd": "containerd github.com/containerd/containerd 1.7.24~ds1"},
            },
            "containerd.config",
            "fail",
            "containerd is 1.7.24",
        ),
        (
            {"programs": ("/opt/shim",), **texts(f'version = 3\n{V3}{RUNTIME}runtime_path = "/opt/shim"\n')},
            "containerd.shim",
            "ok",
            "by runtime_path",
        ),
    ],
)
def test_what_is_wrong_is_named(change: dict[str, object], name: str, status: str, words: str) -> None:
    host: FakeHost = replace(GOOD, **change)  # type: ignore[arg-type]
    check = check_of(host, name)
    assert (check.status, words in check.evidence) == (status, True), check
    probe = next(probe for probe in PROBES if probe.id == name)
    assert status == "ok" or check.fix in [problem.fix for problem in probe.problems]


@pytest.mark.parametrize("words", [["-c", "/k3s.toml"], ["--config", "/k3s.toml"], ["--config=/k3s.toml"]])
def test_configuration_that_the_running_containerd_was_told_to_read_counts(words: list[str]) -> None:
    process = Process(["containerd", *words, "--root", "/x"], ["/usr/bin"])
    host = replace(GOOD, containerd=process, texts={CONFIG_FILE: "", "/k3s.toml": f"version = 3\n{V3}{RUNTIME}"})
    assert check_of(host, "containerd.config").status == "ok"
    assert "/k3s.toml" in check_of(host, "containerd.config").evidence


def test_bad_id_blocks_are_named() -> None:
    host = replace(
        GOOD, config=GOOD.config._replace(id_block=Path("/etc/id.json")), texts={"/etc/id.json": '{"format": 1}'}
    )
    assert check_of(host, "snp.id_block").status == "fail"


def test_emulation_is_never_without_a_warning() -> None:
    assert check_of(GOOD, "emulated.protection").status == "warn"


@pytest.mark.parametrize(("setting", "status"), [("refused", "fail"), ("allowed", "warn")])
def test_emulation_where_the_real_thing_is_there_fails_unless_allowed(setting: str, status: str) -> None:
    parameter = {"/sys/module/kvm_amd/parameters/sev_snp": "Y\n"}
    host = replace(GOOD, texts=GOOD.texts | parameter, config=GOOD.config._replace(emulated_on_snp=setting))
    assert check_of(host, "emulated.protection").status == status


def tree(root: Path) -> Path:
    """A machine's files as far as the doctor reads them."""
    for path, text in {
        CONFIG_FILE: f"version = 3\n{V3}{RUNTIME}",
        "/proc/cmdline": "quiet",
        "/proc/17/comm": "containerd\n",
        "/proc/17/cmdline": "/usr/bin/containerd\0--log-level\0info\0",
        "/proc/17/environ": "LANG=C\0PATH=/opt/containerd:/usr/bin\0",
        "/sys/fs/cgroup/cgroup.controllers": "cpu\n",
        "/opt/containerd/containerd-shim-parma-v2": "#!/bin/sh\n",
        "/usr/bin/setpriv": "#!/bin/sh\n",
        "/run/keep": "",
        "/dev/kvm": "",
    }.items():
        file = root / path.lstrip("/")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
        file.chmod(0o755)
    return root


def test_a_tree_of_files_is_examined_like_a_machine(tmp_path: Path) -> None:
    image = write_image(tmp_path / "image")
    config = Config(tee="emulated", image_dir=tmp_path / "image", python=Path(sys.executable), qemu=Path("/bin/qemu"))
    checks = {check.id: check for check in cli.examine(config, root=tree(tmp_path / "root"))}
    assert checks["containerd.shim"].status == "ok"
    assert "/opt/containerd/containerd-shim-parma-v2, in containerd's PATH" in checks["containerd.shim"].evidence
    assert checks["containerd.config"].status == "ok"
    assert checks["tools.setpriv"].status == "ok"
    assert checks["tools.python"].status == "ok"
    assert checks["tools.qemu"].status == "fail"
    assert checks["image.manifest"].status == "ok"
    assert checks["host.cgroups"].status == "ok"
    image.kernel.path.write_bytes(b"x" * image.kernel.size)
    checks = {check.id: check for check in cli.examine(config, root=tmp_path / "root")}
    assert checks["image.manifest"].status == "fail"


def test_snp_adds_the_checks_of_the_hardware(tmp_path: Path) -> None:
    config = Config(tee="snp", image_dir=tmp_path)
    names = [check.id for check in cli.examine(config, root=tree(tmp_path / "root"))]
    assert names[0] == "cpu.product"
    assert {"kvm.vm_types", "sev.device", "snp.certificates", "containerd.config"} <= set(names)
    assert len(set(names)) == len(names)


def test_real_host_is_a_host(tmp_path: Path) -> None:
    host: Surroundings = ThisHost(Config(image_dir=tmp_path), root=tree(tmp_path / "root"))
    assert host.writable("/run") is True
    assert host.writable("/nowhere") is None
    assert host.process("containerd") == Process(
        ["/usr/bin/containerd", "--log-level", "info"], ["/opt/containerd", "/usr/bin"]
    )
    assert host.process("nothing") is None
    assert host.run(["/nonexistent"]) is None
    assert host.run(["/bin/false"]) is None
    with pytest.raises(NotFound):
        host.image()


def test_command_reports_and_fails_as_it_should(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = tmp_path / "config.toml"
    config.write_text(f'tee = "emulated"\nimage_dir = "{tmp_path}"\n')
    assert main(["doctor", "--config", str(config)]) == 1
    text = capsys.readouterr().out
    assert "fail  image.manifest" in text
    assert "-> parma image build" in text
    assert "not ready: " in text.splitlines()[-1]
    assert main(["doctor", "--config", str(config), "--tee", "snp", "--json"]) == 1
    document = json.loads(capsys.readouterr().out)
    assert (document["tee"], document["good"]) == ("snp", False)
    assert {"id", "status", "evidence", "fix"} == set(document["checks"][0])


def test_ready_host_is_said_to_be_ready() -> None:
    text = cli.render("emulated", [Check("a.b", "ok", "fine"), Check("c.d", "warn", "hm", "do this")])
    assert text == ('ok    a.b  fine\nwarn  c.d  hm\n           -> do this\n\nready for tee = "emulated", 1 warnings')
