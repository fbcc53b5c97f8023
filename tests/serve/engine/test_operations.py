"""The CPU adapter operations against a row-by-row reference in double precision."""

import itertools

import pytest
import torch

from loradeck_serve.engine.plugin import operations
from loradeck_serve.engine.plugin.kernel import load_kernel
from loradeck_serve.engine.plugin.plan import plan_batch
from loradeck_serve.engine.plugin.tiles import TiledLayer

TOLERANCE = {torch.float32: 1e-5, torch.bfloat16: 4e-2}
BATCHES = {
    "unbalanced": [0] * 20 + [1, -1, 2],
    "gap between slots": [0, 2, 2, 0, -1],
    "one slot": [0] * 7,
    "no adapter": [-1] * 5,
    "one row": [2],
    "mixed": [-1, 0, 2, 2, -1, 1, 0, 0, 2, -1],
    "sorted": [0, 0, 1, 1, 2, 2],
    "many rows": [0] * 17 + [-1] * 3 + [2, 0, 1] * 30 + [1] * 33,
}
SLICES = ((24,), (16, 8, 8), (100, 70))


def make_stacks(slots: int, rank: int, inputs: int, slices: tuple[int, ...], dtype: torch.dtype, seed: int = 0):
    generator = torch.Generator().manual_seed(seed)
    a = [torch.randn(slots, 1, rank, inputs, generator=generator).to(dtype) for _ in slices]
    b = [torch.randn(slots, 1, width, rank, generator=generator).to(dtype) for width in slices]
    return a, b


def add_packed(y, x, a, b, slices, slots, ranks):
    plan = plan_batch(slots, ranks)
    if plan is not None:
        layer = operations.PackedLayer(a, b, slices)
        layer.update([group.slot for group in plan.groups], ranks, [1] * len(ranks))
        layer.add(y, x, plan)


def add_grouped(y, x, a, b, slices, slots, ranks):
    plan = plan_batch(slots, ranks)
    if plan is not None:
        operations.add_lora(y, x, a, b, slices, plan)


def add_by_kernel(y, x, a, b, slices, slots, ranks):
    kernel = load_kernel()
    if kernel is None:
        pytest.skip("no C compiler here")
    plan = plan_batch(slots, ranks)
    if plan is not None:
        layer = operations.PackedLayer(a, b, slices, torch.float32)
        layer.update([group.slot for group in plan.groups], ranks, [1] * len(ranks))
        assert operations.fits(y, x)
        layer.add_by_kernel(kernel, y, x, plan)


def add_by_tiles(y, x, a, b, slices, slots, ranks):
    kernel = load_kernel()
    if kernel is None or not kernel.has_tiles():
        pytest.skip("no C compiler, or no matrix unit here")
    if x.dtype != torch.bfloat16:
        pytest.skip("the matrix unit takes bfloat16 only")
    plan = plan_batch(slots, ranks)
    if plan is not None:
        layer = TiledLayer(a, b, slices)
        layer.update([group.slot for group in plan.groups], ranks, [1] * len(ranks))
        layer.add(kernel, y, x, plan)


@pytest.fixture(
    params=[add_packed, add_grouped, add_by_kernel, add_by_tiles], ids=["packed", "grouped", "kernel", "tiles"]
)
def add(request):
    """All ways to compute the same."""
    return request.param


@pytest.fixture
def kind(add):
    """The precision that a way is for."""
    return torch.bfloat16 if add is add_by_tiles else torch.float32


def reference(y, x, a, b, slots):
    """Row by row, in double precision."""
    result = y.double().clone()
    for row, slot in enumerate(slots):
        if slot >= 0:
            parts = [w[slot, 0].double() @ (v[slot, 0].double() @ x[row].double()) for v, w in zip(a, b, strict=True)]
            result[row] += torch.cat(parts)
    return result


@pytest.mark.parametrize(
    ("batch", "slices", "dtype", "rank"),
    itertools.product(BATCHES, SLICES, TOLERANCE, (1, 8, 16, 40)),
    ids=str,
)
def test_linear_gives_each_row_its_own_slot(add, batch, slices, dtype, rank) -> None:
    slots = BATCHES[batch]
    a, b = make_stacks(3, rank, 32, slices, dtype)
    x, y = torch.randn(len(slots), 32).to(dtype), torch.randn(len(slots), sum(slices)).to(dtype)
    found = y.clone()
    add(found, x, a, b, slices, slots, [rank] * 3)
    wanted = reference(y, x, a, b, slots)
    worst = (found.double() - wanted).abs().max() / max(1.0, wanted.abs().max())
    assert worst < TOLERANCE[dtype]
    without = torch.tensor(slots) < 0
    assert torch.equal(found[without], y[without])


@pytest.mark.parametrize("fill", [float("nan"), float("inf")])
def test_slots_without_a_row_cannot_reach_any_row(add, kind, fill) -> None:
    slots = [0, -1, 1, 0, -1, 1]
    a, b = make_stacks(4, 8, 32, (16, 8), kind)
    clean = [tensor.clone() for tensor in a], [tensor.clone() for tensor in b]
    for tensor in (*a, *b):
        tensor[2:] = fill
    x, y = torch.randn(6, 32).to(kind), torch.randn(6, 24).to(kind)
    found, wanted = y.clone(), y.clone()
    add(found, x, a, b, (16, 8), slots, [8] * 4)
    add(wanted, x, *clean, (16, 8), slots, [8] * 4)
    assert found.isfinite().all()
    assert torch.equal(found, wanted)


def test_a_broken_slot_breaks_only_its_own_rows(add, kind) -> None:
    slots = [0, -1, 1, 0, -1, 1]
    a, b = make_stacks(2, 8, 32, (24,), kind)
    a[0][1], b[0][1] = float("nan"), float("nan")
    x, y = torch.randn(6, 32).to(kind), torch.randn(6, 24).to(kind)
    found = y.clone()
    add(found, x, a, b, (24,), slots, [8, 8])
    own = torch.tensor(slots) == 1
    assert not found[own].isfinite().any()
    assert found[~own].isfinite().all()
    assert torch.equal(found[torch.tensor(slots) < 0], y[torch.tensor(slots) < 0])


def test_a_row_of_infinite_activations_breaks_only_itself(add, kind) -> None:
    slots = [0, 1, 0, 1]
    a, b = make_stacks(2, 8, 32, (24,), kind)
    x, y = torch.randn(4, 32).to(kind), torch.randn(4, 24).to(kind)
    x[2] = float("inf")
    found = y.clone()
    add(found, x, a, b, (24,), slots, [8, 8])
    assert found[[0, 1, 3]].isfinite().all()


@pytest.mark.parametrize("inputs", [1, 15, 16, 33, 700])
def test_widths_that_fit_no_vector_are_exact(add, inputs) -> None:
    slots = [0, 1, -1, 1]
    a, b = make_stacks(2, 3, inputs, (130, 5), torch.bfloat16)
    x, y = torch.randn(4, inputs).bfloat16(), torch.randn(4, 135).bfloat16()
    found = y.clone()
    add(found, x, a, b, (130, 5), slots, [3, 3])
    wanted = reference(y, x, a, b, slots)
    assert (found.double() - wanted).abs().max() < 4e-2 * max(1.0, wanted.abs().max())


def test_only_the_rank_of_the_adapter_is_computed(add, kind) -> None:
    a, b = make_stacks(1, 16, 32, (24,), kind)
    a[0][:, :, 4:], b[0][..., 4:] = float("nan"), float("nan")
    y = torch.zeros(3, 24).to(kind)
    add(y, torch.randn(3, 32).to(kind), a, b, (24,), [0, 0, 0], [4])
    assert y.isfinite().all()
    assert y.abs().sum() > 0


def test_an_adapter_of_rank_zero_has_no_part_in_a_batch() -> None:
    assert plan_batch([0, 0, -1], [0, 8]) is None
    assert plan_batch([-1, -1], [8, 8]) is None


@pytest.mark.parametrize("batch", [name for name in BATCHES if name != "no adapter"])
def test_embedding_gives_each_row_its_own_slot(batch) -> None:
    slots = BATCHES[batch]
    _, b = make_stacks(3, 8, 4, (24,), torch.float32)
    x, y = torch.randn(len(slots), 8), torch.randn(len(slots), 24)
    one = [torch.eye(8).expand(3, 1, 8, 8)]
    found = y.clone()
    operations.add_lora_embedding(found, x, b[0], plan_batch(slots, [8] * 3))
    assert torch.allclose(found.double(), reference(y, x, one, b, slots), atol=1e-5)


def test_a_slot_filled_anew_is_used_from_the_next_batch_on() -> None:
    a, b = make_stacks(2, 8, 32, (16, 8), torch.float32)
    x, slots = torch.randn(4, 32), [0, 1, 1, 0]
    plan = plan_batch(slots, [8, 8])
    layer = operations.PackedLayer(a, b, (16, 8))
    for versions, seed in (([1, 1], 1), ([1, 2], 2), ([5, 2], 3)):
        fresh_a, fresh_b = make_stacks(2, 8, 32, (16, 8), torch.float32, seed)
        slot = 1 if seed == 2 else 0
        for old, new in zip((*a, *b), (*fresh_a, *fresh_b), strict=True):
            old[slot] = new[slot]
        found = torch.zeros(4, 24)
        layer.update([0, 1], [8, 8], versions)
        layer.add(found, x, plan)
        assert torch.allclose(found.double(), reference(torch.zeros(4, 24), x, a, b, slots), atol=1e-4)


def test_a_larger_rank_grows_the_packed_layer() -> None:
    a, b = make_stacks(2, 16, 32, (24,), torch.float32)
    a[0][0, :, 4:], b[0][0, ..., 4:] = 0, 0
    x, layer = torch.randn(4, 32), operations.PackedLayer(a, b, (24,))
    for slots, ranks in (([0, 0, -1, 0], [4, 0]), ([0, 1, -1, 1], [4, 16])):
        plan = plan_batch(slots, ranks)
        found = torch.zeros(4, 24)
        layer.update([group.slot for group in plan.groups], ranks, [1, 1])
        layer.add(found, x, plan)
        assert torch.allclose(found.double(), reference(torch.zeros(4, 24), x, a, b, slots), atol=1e-4)
