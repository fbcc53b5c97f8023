"""The self-test at start: it passes for right operations and stops an engine with wrong ones."""

from types import SimpleNamespace

import pytest
import torch

pytestmark = [pytest.mark.filterwarnings("ignore"), pytest.mark.slow]


@pytest.fixture(scope="module")
def vllm_modules():
    """vLLM's parts that the test needs; skips where vLLM is not installed."""
    pytest.importorskip("vllm")
    from vllm.lora.punica_wrapper.punica_cpu import PunicaWrapperCPU

    from loradeck_serve.engine.plugin import punica, self_test

    return SimpleNamespace(punica=punica, module=self_test, stock=PunicaWrapperCPU)


def config(slots=4, rank=16):
    return SimpleNamespace(max_loras=slots, max_lora_rank=rank)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize(("slots", "rank"), [(1, 8), (4, 16), (9, 64)])
@pytest.mark.parametrize("kernel", [True, False])
def test_right_operations_pass(vllm_modules, monkeypatch, dtype, slots, rank, kernel) -> None:
    if not kernel:
        monkeypatch.setattr(vllm_modules.punica, "load_kernel", lambda: None)
    vllm_modules.module.self_test(config(slots, rank), dtype)


@pytest.mark.parametrize("operation", ["linear", "embedding", "logits"])
def test_stock_operations_are_found_out(vllm_modules, monkeypatch, operation) -> None:
    wrapper, name = vllm_modules.punica.GroupedPunicaWrapper, f"add_lora_{operation}"
    for helper in ("add_shrink", "add_expand"):
        monkeypatch.setattr(wrapper, helper, getattr(vllm_modules.stock, helper))
    original = wrapper.update_metadata

    def update_both(self, mapping, *rest):
        vllm_modules.stock.update_metadata(self, mapping, *rest)
        original(self, mapping, *rest)

    monkeypatch.setattr(wrapper, "update_metadata", update_both)
    monkeypatch.setattr(wrapper, name, getattr(vllm_modules.stock, name))
    with pytest.raises(vllm_modules.module.SelfTestError, match=operation):
        vllm_modules.module.self_test(config(), torch.float32)


def test_a_small_error_is_found_out(vllm_modules, monkeypatch) -> None:
    wrapper = vllm_modules.punica.GroupedPunicaWrapper
    original = wrapper.add_lora_linear

    def slightly_wrong(self, y, x, *rest, **more):
        original(self, y, x * 1.01, *rest, **more)

    monkeypatch.setattr(wrapper, "add_lora_linear", slightly_wrong)
    with pytest.raises(vllm_modules.module.SelfTestError, match="linear"):
        vllm_modules.module.self_test(config(), torch.float32)
