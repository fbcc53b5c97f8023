"""LoRA layers as the worker calls them: through the opaque operation, batch after batch, while slots change hands."""

from types import SimpleNamespace

import pytest
import torch

pytestmark = [pytest.mark.filterwarnings("ignore"), pytest.mark.slow]

SLOTS, RANK, LARGEST, INPUTS, WIDTH = 4, 8, 16, 64, 48
TOLERANCE = {torch.float32: 1e-5, torch.bfloat16: 2e-2}


@pytest.fixture(scope="module")
def vllm_modules():
    """vLLM's parts that the test needs, its layers changed as in the worker; skips where vLLM is not installed."""
    pytest.importorskip("vllm")
    from vllm.lora.layers import LoRAMapping, VocabParallelEmbeddingWithLoRA
    from vllm.lora.layers.base_linear import BaseLinearLayerWithLoRA

    from loradeck_serve.engine.plugin import compiled, punica
    from loradeck_serve.engine.plugin.self_test import reference_add

    before = BaseLinearLayerWithLoRA._apply_lora_to_output, VocabParallelEmbeddingWithLoRA.forward
    compiled.define_operations("CPU")
    compiled.hide_layers()
    yield SimpleNamespace(
        layer=BaseLinearLayerWithLoRA,
        mapping=lambda numbers: LoRAMapping(tuple(numbers), tuple(numbers), is_prefill=True),
        compiled=compiled,
        wrapper=punica.GroupedPunicaWrapper,
        reference=reference_add,
    )
    BaseLinearLayerWithLoRA._apply_lora_to_output, VocabParallelEmbeddingWithLoRA.forward = before
    compiled._library = None


class Model:
    """Three LoRA layers of random adapters, with NaN behind each adapter's rank."""

    def __init__(self, vllm, dtype: torch.dtype) -> None:
        self.vllm, self.dtype = vllm, dtype
        self.wrapper = vllm.wrapper(256, 64, "cpu", lora_config=SimpleNamespace(max_loras=SLOTS, max_lora_rank=LARGEST))
        self.layers = [self._layer() for _ in range(3)]
        for slot in range(SLOTS):
            self.fill(slot)
        manager = SimpleNamespace(modules={str(number): layer for number, layer in enumerate(self.layers)})
        vllm.compiled.attach(manager, SimpleNamespace())

    def _layer(self):
        layer = self.vllm.layer.__new__(self.vllm.layer)
        torch.nn.Module.__init__(layer)
        layer.punica_wrapper = self.wrapper
        layer.lora_a_stacked = (torch.full((SLOTS, 1, LARGEST, INPUTS), float("nan"), dtype=self.dtype),)
        layer.lora_b_stacked = (torch.full((SLOTS, 1, WIDTH, LARGEST), float("nan"), dtype=self.dtype),)
        layer.output_slices = (WIDTH,)
        return layer

    def fill(self, slot: int) -> None:
        for layer in self.layers:
            layer.lora_a_stacked[0][slot, :, :RANK].normal_()
            layer.lora_b_stacked[0][slot, ..., :RANK].normal_()
        self.wrapper.fill_slot(slot, RANK)

    def batch(self, slots: list[int]) -> None:
        numbers = list(range(1, SLOTS + 1))
        mapping = self.vllm.mapping([slot + 1 for slot in slots])
        self.wrapper.update_metadata(mapping, numbers, SLOTS + 1, WIDTH)

    def check(self, slots: list[int], x: torch.Tensor) -> None:
        index = torch.tensor(slots)
        for layer in self.layers:
            y = torch.randn(len(slots), WIDTH).to(self.dtype)
            found = layer._apply_lora_to_output(x, y.clone())
            a, b = layer.lora_a_stacked[0][:, :, :RANK], layer.lora_b_stacked[0][..., :RANK]
            wanted = self.vllm.reference(y, x, a, b, index)
            assert (found.double() - wanted).abs().max() < TOLERANCE[self.dtype] * max(1.0, wanted.abs().max())
            assert torch.equal(found[index < 0], y[index < 0])


@pytest.fixture(params=TOLERANCE, ids=str)
def model(vllm_modules, request):
    return Model(vllm_modules, request.param)


def test_each_batch_uses_what_its_slots_hold_then(model) -> None:
    for number in range(4):
        slots = [(row * 3 + number) % (SLOTS + 1) - 1 for row in range(40)]
        model.batch(slots)
        model.check(slots, torch.randn(len(slots), INPUTS).to(model.dtype))
        model.fill(number)


def test_a_batch_without_adapters_changes_nothing(model) -> None:
    for slots in ([0, 1, -1], [-1, -1, -1]):
        model.batch(slots)
        model.check(slots, torch.randn(3, INPUTS).to(model.dtype))


def test_rows_whose_columns_lie_apart_are_exact_too(model) -> None:
    model.batch([0, 2, -1])
    model.check([0, 2, -1], torch.randn(3, INPUTS).to(model.dtype))
    model.check([0, 2, -1], torch.randn(INPUTS, 3).to(model.dtype).t())


def test_an_adapter_without_lora_on_the_head_has_no_part_in_the_logits(model) -> None:
    """Its slot may hold anything there: it is not read, and takes no time."""
    a = torch.randn(SLOTS, 1, LARGEST, INPUTS).to(model.dtype)
    b = torch.randn(SLOTS, 1, WIDTH, LARGEST).to(model.dtype)
    slots = [0, 1, -1, 2, 1]
    for slot in range(SLOTS):
        model.wrapper.fill_slot(slot, RANK, RANK if slot == 1 else 0)
        if slot != 1:
            a[slot], b[slot] = float("nan"), float("nan")
    model.batch(slots)
    x, y = torch.randn(len(slots), INPUTS).to(model.dtype), torch.randn(len(slots), WIDTH).to(model.dtype)
    found = y.clone()
    model.wrapper.add_lora_logits(found, x, a, b, 1.0)
    index = torch.tensor([1 if slot == 1 else -1 for slot in slots])
    wanted = model.vllm.reference(y, x, a[:, :, :RANK], b[..., :RANK], index)
    assert (found.double() - wanted).abs().max() < TOLERANCE[model.dtype] * max(1.0, wanted.abs().max())
    assert torch.equal(found[index < 0], y[index < 0])
    # Without such an adapter in the batch there is nothing to do at all.
    model.batch([0, 2, -1])
    before = y[:3].clone()
    model.wrapper.add_lora_logits(before, x[:3], a, b, 1.0)
    assert torch.equal(before, y[:3])
