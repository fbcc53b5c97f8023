"""Tables of new tokens per slot, and the file that they are read from."""

import pytest
import torch
from safetensors.torch import save_file

from loradeck_serve.engine.plugin.new_tokens import FILE, NewRows, NewTokenTables, read_rows

VOCABULARY, ROWS, HIDDEN = 10, 18, 6


def make_rows(ids, seed=0) -> NewRows:
    generator = torch.Generator().manual_seed(seed)
    return NewRows(
        torch.tensor(ids),
        torch.randn(len(ids), HIDDEN, generator=generator),
        torch.randn(len(ids), HIDDEN, generator=generator),
    )


def make_tables(table_rows=4, base_ids=()) -> NewTokenTables:
    tables = NewTokenTables(3, table_rows, VOCABULARY, ROWS, base_ids)
    tables.allocate(HIDDEN, torch.float32, "cpu")
    return tables


@pytest.mark.parametrize("embed", ["embed", "embed_static"])
def test_each_request_sees_the_rows_of_its_own_slot(embed) -> None:
    tables, first, second = make_tables(), make_rows([10, 12], 1), make_rows([10, 11], 2)
    tables.set_slot(0, first)
    tables.set_slot(2, second)
    ids, slots = torch.tensor([10, 10, 12, 3, 10]), torch.tensor([0, 2, 0, 0, -1])
    found = torch.zeros(5, HIDDEN)
    getattr(tables, embed)(found, ids, slots)
    wanted = torch.stack(
        [first.input_rows[0], second.input_rows[0], first.input_rows[1], torch.zeros(HIDDEN), torch.zeros(HIDDEN)]
    )
    assert torch.equal(found, wanted)


@pytest.mark.parametrize("compute", ["logits", "logits_static"])
def test_logits_of_new_tokens_come_from_the_output_rows_of_the_slot(compute) -> None:
    tables, first, second = make_tables(), make_rows([10, 12], 1), make_rows([10, 11], 2)
    tables.set_slot(0, first)
    tables.set_slot(2, second)
    hidden, slots = torch.randn(3, HIDDEN), torch.tensor([2, -1, 0])
    logits = getattr(tables, compute)(hidden, slots)
    assert torch.allclose(logits[0, [0, 1]], second.output_rows @ hidden[0])
    assert torch.allclose(logits[2, [0, 2]], first.output_rows @ hidden[2])


def test_only_the_adapters_own_tokens_can_be_produced() -> None:
    tables = make_tables()
    tables.set_slot(1, make_rows([10, 12]))
    blocked = tables.blocked(torch.tensor([1, 0, -1]), 3)
    assert (~blocked[0]).nonzero().squeeze(1).tolist() == [0, 2]
    assert blocked[1:].all()


def test_the_bases_own_added_tokens_are_for_requests_without_an_adapter_only() -> None:
    tables = make_tables(base_ids=(15,))
    tables.set_slot(1, make_rows([10]))
    blocked = tables.blocked(torch.tensor([-1, 1]), 2)
    assert (~blocked[0]).nonzero().squeeze(1).tolist() == [5]
    assert (~blocked[1]).nonzero().squeeze(1).tolist() == [0]


def test_an_engine_without_adapters_blocks_reserved_tokens_too() -> None:
    tables = NewTokenTables(0, 8, VOCABULARY, ROWS, (11,))
    assert tables.blocked(None, 2).tolist() == [[index != 1 for index in range(8)]] * 2


def test_a_slot_that_changes_hands_forgets_its_former_rows() -> None:
    tables = make_tables()
    tables.set_slot(0, make_rows([10, 11, 12]))
    tables.set_slot(0, make_rows([11], 5))
    assert (~tables.blocked(torch.tensor([0]), 1)[0]).nonzero().squeeze(1).tolist() == [1]
    tables.set_slot(0, None)
    assert tables.blocked(torch.tensor([0]), 1).all()
    assert tables.logits(torch.randn(1, HIDDEN), torch.tensor([0])) is None


@pytest.mark.parametrize(("embed", "compute"), [("embed", "logits"), ("embed_static", "logits_static")])
def test_a_neighbours_broken_rows_reach_nobody(embed, compute) -> None:
    tables, good = make_tables(), make_rows([10], 1)
    tables.set_slot(0, good)
    bad = make_rows([10])
    bad.input_rows.fill_(float("nan"))
    bad.output_rows.fill_(float("nan"))
    tables.set_slot(1, bad)
    ids, slots = torch.tensor([10, 10, 10]), torch.tensor([0, 1, -1])
    found = torch.ones(3, HIDDEN)
    getattr(tables, embed)(found, ids, slots)
    assert torch.equal(found[[0, 2]], torch.stack([good.input_rows[0], torch.ones(HIDDEN)]))
    hidden = torch.randn(2, HIDDEN)
    assert torch.allclose(getattr(tables, compute)(hidden, torch.tensor([0, 1]))[0, 0], good.output_rows[0] @ hidden[0])


def write(folder, **changes) -> None:
    tensors = {
        "ids": torch.tensor([10, 11]),
        "input_rows": torch.ones(2, HIDDEN),
        "output_rows": torch.ones(2, HIDDEN),
    }
    tensors |= changes
    save_file({name: tensor for name, tensor in tensors.items() if tensor is not None}, str(folder / FILE))


def test_rows_are_read_in_the_engines_precision(tmp_path) -> None:
    write(tmp_path)
    rows = read_rows(tmp_path, VOCABULARY, 4, HIDDEN, torch.bfloat16)
    assert rows.ids.tolist() == [10, 11]
    assert rows.input_rows.dtype == rows.output_rows.dtype == torch.bfloat16


def test_an_adapter_without_the_file_adds_nothing(tmp_path) -> None:
    assert read_rows(tmp_path, VOCABULARY, 4, HIDDEN, torch.float32) is None


@pytest.mark.parametrize(
    "changes",
    [
        {"ids": torch.tensor([9, 10])},
        {"ids": torch.tensor([10, 14])},
        {"ids": torch.tensor([10, 10])},
        {"ids": torch.tensor([10.0, 11.0])},
        {"ids": torch.tensor([10])},
        {"input_rows": torch.ones(2, HIDDEN - 1)},
        {"output_rows": torch.ones(3, HIDDEN)},
        {"output_rows": torch.full((2, HIDDEN), float("nan"))},
        {"input_rows": torch.full((2, HIDDEN), 1e39, dtype=torch.float64)},
        {"output_rows": None},
        {"extra": torch.ones(1)},
    ],
)
def test_malformed_files_are_refused(tmp_path, changes) -> None:
    write(tmp_path, **changes)
    with pytest.raises(ValueError, match=FILE):
        read_rows(tmp_path, VOCABULARY, 4, HIDDEN, torch.float32)
