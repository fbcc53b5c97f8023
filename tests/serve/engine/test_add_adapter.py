"""Adapters in the worker, batch after batch: the short way leaves vLLM's own manager as vLLM's own way does."""

import random
from types import SimpleNamespace

import pytest

pytestmark = [pytest.mark.filterwarnings("ignore"), pytest.mark.slow]

SLOTS, HELD, NUMBERS = 3, 5, range(1, 8)


@pytest.fixture(scope="module")
def vllm():
    """vLLM's parts that the test needs; skips where vLLM is not installed."""
    pytest.importorskip("vllm")
    from vllm.lora.model_manager import AdapterLRUCache, LRUCacheLoRAModelManager
    from vllm.lora.worker_manager import LRUCacheWorkerLoRAManager

    from loradeck_serve.engine.plugin import adapters

    return SimpleNamespace(
        cache=AdapterLRUCache, manager=LRUCacheLoRAModelManager, worker=LRUCacheWorkerLoRAManager, adapters=adapters
    )


class Manager:
    """vLLM's managers on a model without layers: its own bookkeeping of what is held and what is in which slot."""

    def __init__(self, vllm, *, short: bool) -> None:
        self.vllm, self.short = vllm, short
        inner = self.inner = vllm.manager.__new__(vllm.manager)
        inner.lora_config = SimpleNamespace(max_loras=SLOTS, max_cpu_loras=HELD)
        inner.lora_index_to_id = [None] * SLOTS
        inner._registered_adapters = vllm.cache(HELD, inner.deactivate_adapter)
        inner._active_adapters = vllm.cache(SLOTS, inner._deactivate_adapter)
        inner._add_adapter = lambda lora: inner._registered_adapters.__setitem__(lora.id, lora)
        # One layer: it has the adapter that was put into each slot last.
        self.layer = dict.fromkeys(range(SLOTS))
        inner.modules = {"layer": SimpleNamespace(set_lora=lambda slot, a, b: self.layer.update({slot: a}))}
        inner._get_lora_layer_weights = lambda lora, name: SimpleNamespace(lora_a=lora.content, lora_b=None)
        self.outer = vllm.worker.__new__(vllm.worker)
        self.outer._adapter_manager = inner
        self.outer._load_adapter = self._load
        self.loads = self.listings = 0
        self.broken: set[int] = set()

    def _load(self, request) -> SimpleNamespace:
        self.loads += 1
        if request.lora_int_id in self.broken:
            raise ValueError("broken")
        return SimpleNamespace(id=request.lora_int_id, content=f"{request.lora_int_id} of load {self.loads}")

    def add(self, number: int, *, load_inplace: bool = False) -> bool:
        request = SimpleNamespace(lora_int_id=number, load_inplace=load_inplace)
        if self.short:
            return bool(self.vllm.adapters.add(self.outer, request, self.vllm.worker.add_adapter))
        return bool(self.vllm.worker.add_adapter(self.outer, request))

    def state(self) -> tuple[object, ...]:
        """Everything: what is held and in slots, each from the least recently used on, and what the layer holds."""
        held, active = self.inner._registered_adapters, self.inner._active_adapters
        return (
            [(number, held.cache[number].content) for number in held.order],
            list(active.order),
            list(self.inner.lora_index_to_id),
            dict(self.layer),
            self.loads,
        )


@pytest.mark.parametrize("seed", range(8))
def test_any_sequence_of_batches_leaves_what_vllms_own_way_leaves(vllm, seed) -> None:
    ours, theirs = Manager(vllm, short=True), Manager(vllm, short=False)
    random_numbers = random.Random(seed)
    short = 0
    for _ in range(200):
        number = random_numbers.choice(NUMBERS)
        match random_numbers.random():
            case chance if chance < 0.1:
                assert ours.outer.remove_adapter(number) == theirs.outer.remove_adapter(number)
            case chance if chance < 0.2:
                assert ours.add(number, load_inplace=True) == theirs.add(number, load_inplace=True)
            case _:
                short += number in ours.inner._active_adapters
                assert ours.add(number) == theirs.add(number)
        assert ours.state() == theirs.state()
    assert short > 20


def test_the_short_way_lists_nothing(vllm, monkeypatch) -> None:
    manager = Manager(vllm, short=True)
    for number in (1, 2):
        manager.add(number)

    def listed(*_: object) -> None:
        raise AssertionError("all adapters were listed")

    monkeypatch.setattr(vllm.worker, "list_adapters", listed)
    before = manager.loads
    assert manager.add(1)
    assert manager.loads == before
    assert list(manager.inner._active_adapters.order) == [2, 1]
    with pytest.raises(AssertionError, match="listed"):
        manager.add(3)


def test_a_failed_load_leaves_nothing_of_a_new_adapter_and_a_known_one_as_it_was(vllm, monkeypatch) -> None:
    manager = Manager(vllm, short=True)
    manager.add(1)
    manager.broken = {1, 2}
    before = manager.state()[:-1]
    for number, load_inplace in ((2, False), (1, True)):
        with pytest.raises(ValueError, match="broken"):
            manager.add(number, load_inplace=load_inplace)
        assert manager.state()[:-1] == before
    # A failure after the load, halfway into a slot.
    manager.broken = set()

    def fails(*_: object) -> None:
        raise RuntimeError("halfway")

    monkeypatch.setattr(manager.inner.modules["layer"], "set_lora", fails)
    with pytest.raises(RuntimeError, match="halfway"):
        manager.add(3)
    assert manager.state()[:-1] == before
