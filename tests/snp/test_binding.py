# SPDX-License-Identifier: Apache-2.0
"""REPORT_DATA that answers a nonce."""

from __future__ import annotations

from parma_snp.binding import NONCE_SIZE, report_data_for_nonce


def test_the_binding_is_sha_512_over_label_and_nonce() -> None:
    # printf 'parma.evidence.v1\0' | cat - <(head -c 64 /dev/zero) | sha512sum
    assert report_data_for_nonce(bytes(NONCE_SIZE)).hex() == EXPECTED


def test_another_nonce_has_another_answer() -> None:
    assert report_data_for_nonce(bytes(NONCE_SIZE)) != report_data_for_nonce(b"\1" + bytes(NONCE_SIZE - 1))


EXPECTED = (
    "e4e4e3a9add25ca16c615c91bcbbcd6c25c4c1e91aadc4270a0f8dd1c0b2b782"
    "30808149606d4cf64196341f3dd8d3e2f7ab60174e5727638355c318073795d7"
)
