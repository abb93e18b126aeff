"""Work in parts, the bound of their memory, and memory that is kept."""

import platform
import warnings

import pytest
import torch

from lightning_vfe.errors import SettingError
from lightning_vfe.physics import chunking
from lightning_vfe.physics.chunking import (
    after_halvings,
    keep_freed_memory,
    map_chunks,
    map_rows,
    max_chunk_elements,
    max_kept_elements,
    set_max_chunk_elements,
)
from lightning_vfe.physics.memory import free_memory, is_out_of_memory

CPU = torch.zeros(1)


@pytest.fixture(autouse=True)
def fresh_bound():
    """The bound is a setting of the process."""
    set_max_chunk_elements(None)
    yield
    set_max_chunk_elements(None)


class Limited:
    """The sum over atoms and components, on a machine with memory for a few configurations; notes the parts."""

    def __init__(self, largest, error=torch.OutOfMemoryError):
        self.largest, self.error, self.tried = largest, error, []

    def __call__(self, *positions):
        total = sum(each.sum((-2, -1)) for each in positions)
        self.tried.append(total.numel())
        if total.numel() > self.largest:
            raise self.error("CUDA out of memory. Tried to allocate 2.00 GiB.")
        return (total,)


def test_parts_share_what_has_length_one():
    shared, own = torch.rand(3, 1, 4, 3), torch.rand(3, 5, 4, 3)
    sizes = []

    def total(x, r):
        sizes.append(x.shape[0] * r.shape[1])
        return ((x * r).sum((-2, -1)),)

    found = map_chunks(total, 4, shared, own)[0]
    torch.testing.assert_close(found, (shared * own).sum((-2, -1)))
    assert max(sizes) <= 4


@pytest.mark.parametrize(("limit", "parts"), [(63, 17), (64, 16), (1024, 1), (1, 1024)])
def test_no_more_parts_than_the_limit_asks_for(limit, parts):
    function = Limited(largest=1024)
    map_rows(function, limit, torch.rand(1024, 1, 1))
    assert len(function.tried) == parts
    assert max(function.tried) <= limit


@pytest.mark.parametrize("largest", [1, 3, 7, 100])
def test_out_of_memory_halves_the_chunk_and_says_so_once(largest):
    x, function = torch.rand(20, 3, 4, 3), Limited(largest)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        found = map_chunks(function, 1000, x)[0]
        again = map_chunks(function, 1000, x)[0]
    torch.testing.assert_close(found, x.sum((-2, -1)))
    torch.testing.assert_close(again, found)
    assert len(caught) == (largest < 60)
    assert all("out of memory with 60 configurations" in str(each.message) for each in caught)


def test_the_bound_stays_halved():
    """What did not fit is not tried again and again."""
    function, before = Limited(4), max_chunk_elements(CPU)
    with pytest.warns(RuntimeWarning, match=f"max_chunk_elements={before // 2} "):
        map_rows(function, 8, torch.rand(8, 1, 1))
    assert function.tried == [8, 4, 4]
    assert (max_chunk_elements(CPU), after_halvings(8)) == (before // 2, 4)
    function.tried.clear()
    map_rows(function, after_halvings(8), torch.rand(8, 1, 1))
    assert function.tried == [4, 4]
    set_max_chunk_elements(None)
    assert (max_chunk_elements(CPU), after_halvings(8)) == (before, 8)


def test_one_configuration_that_does_not_fit():
    function = Limited(0)
    with (
        pytest.warns(RuntimeWarning),
        pytest.raises(SettingError, match="a single configuration does not fit") as caught,
    ):
        map_chunks(function, 2, torch.rand(4, 2, 3))
    assert caught.value.key == "max_chunk_elements"


def test_other_errors_are_not_repeated():
    function = Limited(0, error=lambda _: RuntimeError("shapes do not match"))
    with pytest.raises(RuntimeError, match="shapes do not match"):
        map_chunks(function, 8, torch.rand(8, 2, 3))
    assert function.tried == [8]


def test_errors_of_the_allocator_of_a_cpu():
    with pytest.raises(RuntimeError) as caught:
        torch.empty(2**55)
    assert is_out_of_memory(caught.value)
    assert not is_out_of_memory(RuntimeError("shapes do not match"))


# --- the bound ------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("free", "elements"),
    [
        (None, chunking.MAX_ELEMENTS_CPU),
        (16 * 2**30, chunking.MAX_ELEMENTS_CPU),
        (300 * 2**20, 2**18),
        (0, 1),
    ],
)
def test_a_cpu_has_the_bound_of_its_caches_or_of_its_free_memory(monkeypatch, free, elements):
    monkeypatch.setattr(chunking, "free_memory", lambda _: free)
    assert max_chunk_elements(CPU) == elements


@pytest.mark.parametrize(("free", "elements"), [(None, 2**25), (79 * 2**30, 2**26), (15 * 2**30, 2**23)])
def test_an_accelerator_has_a_share_of_its_free_memory(monkeypatch, free, elements):
    monkeypatch.setattr(chunking, "free_memory", lambda _: free)
    assert max_chunk_elements(torch.zeros(1, device="meta")) == elements


def test_the_free_memory_is_read_once(monkeypatch):
    """Chunks of one size give a run the same rounding from beginning to end."""
    values = iter([300 * 2**20, 10 * 2**20])
    monkeypatch.setattr(chunking, "free_memory", lambda _: next(values))
    assert [max_chunk_elements(CPU) for _ in range(3)] == [2**18] * 3


def test_the_key_comes_first():
    set_max_chunk_elements(1000)
    assert max_chunk_elements(CPU) == 1000


@pytest.mark.skipif(platform.system() != "Linux", reason="only Linux tells")
def test_free_memory_of_a_cpu():
    free = free_memory(torch.device("cpu"))
    assert free is not None
    assert 2**20 < free < 2**50


def test_freed_memory_is_kept_where_the_c_library_can():
    assert keep_freed_memory() == (platform.libc_ver()[0] == "glibc")


# --- what a backward pass keeps -------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("device", "free", "elements"),
    [
        ("cpu", None, chunking.MAX_KEPT_ELEMENTS_CPU),
        ("cpu", 16 * 2**30, chunking.MAX_KEPT_ELEMENTS_CPU),
        ("cpu", 300 * 2**20, 2**23),
        ("meta", None, 2**30),
        ("meta", 79 * 2**30, 2**31),
    ],
)
def test_a_backward_pass_keeps_a_quarter_of_the_free_memory(monkeypatch, device, free, elements):
    monkeypatch.setattr(chunking, "free_memory", lambda _: free)
    assert max_kept_elements(torch.zeros(1, device=device)) == elements
    assert free is None or 8 * elements <= free / 4


def test_what_is_kept_follows_the_key_and_the_halvings():
    set_max_chunk_elements(1000)
    assert max_kept_elements(CPU) == 32000
    with pytest.warns(RuntimeWarning):
        map_rows(Limited(4), 8, torch.rand(8, 1, 1))
    assert max_kept_elements(CPU) == 16000
