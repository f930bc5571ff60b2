# SPDX-License-Identifier: Apache-2.0
"""An OCI layer tar becomes a read-only ext4 image with a dm-verity tree.

The same tar always gives the same bytes, and the root hash of the tree is what an execution policy lists under
``layers``. The image is bit for bit that of the reference implementation, so policies made for it hold here.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import BinaryIO, Final

from parma_policy.layers import image, verity
from parma_policy.layers.blocks import BlockSink
from parma_policy.layers.filesystem import FileSystem
from parma_policy.layers.stream import Readable, TarStream
from parma_policy.layers.tar import TarReader

MAXIMUM_DISK_SIZE: Final = 128 * image.GIB
"""The limit that policies are made with, in bytes. It determines the layout: another limit gives other hashes."""


@dataclass(frozen=True)
class LayerImage:
    """The result of a conversion. Sizes are bytes."""

    root_hash: str
    """64 lower-case hexadecimal digits."""
    ext4_size: int
    total_size: int
    """ext4, verity superblock and tree."""
    data_blocks: int
    """4096-byte blocks of ext4; the verity superblock is the block after them."""
    diff_id: str
    """``sha256:<hex>`` of the whole tar, bytes after its end included."""


def layer_to_image(
    tar: Readable,
    out: BinaryIO | None,
    *,
    maximum_disk_size: int = MAXIMUM_DISK_SIZE,
    convert_whiteouts: bool = True,
) -> LayerImage:
    """Convert an uncompressed tar, read once from where it stands to its end.

    ``out`` (seekable) receives ext4, verity superblock and tree from its current position on; None computes the
    root hash alone. Memory does not depend on file contents but for 32 bytes a block. Raises LayerError when the tar
    is damaged or cannot be represented, and whatever ``tar.read`` and ``out.write`` raise; there is no partial
    result, but ``out`` may have been written to.
    """
    limit = image.disk_blocks(maximum_disk_size)
    reserved = image.descriptor_blocks(limit)
    with TarStream(tar) as stream, BlockSink(out, 1 + reserved, limit) as sink:
        reader = TarReader(stream)
        files = FileSystem(sink, convert_whiteouts=convert_whiteouts)
        while (entry := reader.next()) is not None:
            files.add(entry, reader)
        image.close(files, sink, reserved)
        diff_id = stream.drain()
        trailer, root_hash = verity.hash_device(sink.digests)
        sink.finish(trailer)
        blocks = sink.next
    ext4_size = blocks * verity.BLOCK
    return LayerImage(
        root_hash=root_hash,
        ext4_size=ext4_size,
        total_size=ext4_size + verity.hash_device_size(blocks),
        data_blocks=blocks,
        diff_id=diff_id,
    )


def root_hash(tar: Readable) -> str:
    """The root hash of an uncompressed layer tar, as a policy lists it."""
    return layer_to_image(tar, None).root_hash
