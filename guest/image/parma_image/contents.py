# SPDX-License-Identifier: Apache-2.0
"""What the guest image is made of. Everything else in it follows from this by computation."""

from __future__ import annotations

from typing import Final

PYTHON: Final = "python3.13"
INTERPRETER: Final = f"usr/bin/{PYTHON}"
STDLIB: Final = f"usr/lib/{PYTHON}"
MULTIARCH: Final = "usr/lib/x86_64-linux-gnu"
LOADER: Final = "usr/lib64/ld-linux-x86-64.so.2"
OUR_DIRECTORY: Final = "usr/lib/parma"
ENTRY: Final = "parma_guest.init"
"""The module whose ``main()`` is process 1."""
VARIANTS: Final = {"default": ENTRY, "rego": "parma_guest.rego"}
"""The same of each variant. Only ``rego`` has a Rego engine, and with it another measurement."""

PROCESSES: Final = ("parma_guest.attest.agent",)
"""Modules that process 1 does not import: it starts processes that do."""

OUR_PACKAGES: Final = ("parma_cose", "parma_guest", "parma_policy", "parma_snp", "parma_wire", "ttrpc")

GUEST_SUITE: Final = "trixie"
GUEST_PACKAGES: Final = (
    # Python, and the libraries of its interpreter and of _ctypes
    f"{PYTHON}-minimal",
    f"lib{PYTHON}-minimal",
    f"lib{PYTHON}-stdlib",
    "libc6",
    "libexpat1",
    "libffi8",
    "zlib1g",
    # containers
    "crun",
    "libcap2",
    "libseccomp2",
    "libsystemd0",
    "libyajl2",
    # mkfs.ext4
    "e2fsprogs",
    "libblkid1",
    "libcom-err2",
    "libext2fs2t64",
    "libuuid1",
    # google-re2
    "libgcc-s1",
    "libstdc++6",
    # not in the image: it compresses the initrd, so that every machine gets the same bytes
    "lz4",
    "liblz4-1",
    "libxxhash0",
)
KERNEL_METAPACKAGE: Final = "linux-image-cloud-amd64"
FIRMWARE_SUITE: Final = "sid"
FIRMWARE_PACKAGE: Final = "ovmf-amdsev"
FIRMWARE: Final = "usr/share/ovmf/OVMF.amdsev.fd"
WHEELS: Final = ("protobuf", "google-re2", "cryptography", "cffi")

COMPRESSOR: Final = "usr/bin/lz4"
"""LZ4: under software emulation the kernel needs 0.1 s more than for an uncompressed initrd, with zstd 0.5 s."""

PROGRAMS: Final = ("usr/bin/crun", "usr/sbin/mke2fs")
CONFIGURATION: Final = ("etc/mke2fs.conf",)

LINKS: Final = {
    "bin": "usr/bin",
    "lib": "usr/lib",
    "lib64": "usr/lib64",
    "sbin": "usr/sbin",
    "usr/sbin/mkfs.ext4": "mke2fs",
}
EMPTY_DIRECTORIES: Final = {"dev": 0o755, "proc": 0o555, "run": 0o755, "sys": 0o555, "tmp": 0o1777}

# Imported by the interpreter itself, or by the standard library inside functions that we can reach.
EXTRA_MODULES: Final = (
    "encodings.ascii",
    "encodings.idna",
    "encodings.latin_1",
    "encodings.utf_8",
    "traceback",  # prints what killed process 1
    "cryptography.hazmat.backends.openssl.backend",  # imported by cryptography when a signature is checked
)
"""Modules that nobody imports by an import statement that we can see."""


def init_script(entry: str = ENTRY) -> str:
    """The text of ``/init``.

    -I: no environment, no user folder. -S: no site module, which would look for site-packages. -B: write no .pyc.
    """
    return (
        f'#!/{INTERPRETER} -ISB\nimport sys\nsys.path.insert(0, "/{OUR_DIRECTORY}")\nfrom {entry} import main\nmain()\n'
    )
