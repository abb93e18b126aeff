"""Work in parts, and memory that is kept."""

import platform

import torch

from lightning_vfe.physics.chunking import keep_freed_memory, map_chunks


def test_parts_share_what_has_length_one():
    shared, own = torch.rand(3, 1, 4, 3), torch.rand(3, 5, 4, 3)
    sizes = []

    def total(x, r):
        sizes.append(x.shape[0] * r.shape[1])
        return ((x * r).sum((-2, -1)),)

    found = map_chunks(total, 4, shared, own)[0]
    torch.testing.assert_close(found, (shared * own).sum((-2, -1)))
    assert max(sizes) <= 4


def test_freed_memory_is_kept_where_the_c_library_can():
    assert keep_freed_memory() == (platform.libc_ver()[0] == "glibc")
