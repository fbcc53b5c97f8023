"""Token ids of examples: the loss is on the answer only, and serving's prompt is the trained prompt."""

from collections.abc import Callable

import pytest
import torch

from loradeck_registry.errors import InvalidError, PreconditionError
from loradeck_tasks.rendering import render_prompt
from loradeck_train.data.batches import IGNORED, Collator, EncodedDataset, LengthGroupedSampler
from loradeck_train.data.encoding import Encoded, encode_examples
from loradeck_train.prepare import prepare
from loradeck_train.recipe.settings import Recipe

Build = Callable[..., Recipe]


def test_label_token_is_the_only_thing_learned(recipe_of: Build) -> None:
    prepared = prepare(recipe_of(), None)
    ids = {token.content: token.id for token in prepared.task.added_tokens}
    vocabulary = prepared.base.identity.vocabulary
    assert sorted(ids.values()) == list(range(vocabulary, vocabulary + 3))
    batch = Collator(0)([EncodedDataset(prepared.training)[i] for i in range(len(prepared.training))])
    for row, example in enumerate(prepared.data.training):
        prompt = render_prompt(prepared.task, example.values, prepared.tokenizer)
        learned = (batch["labels"][row] != IGNORED).nonzero().flatten().tolist()
        assert learned == [len(prompt)]
        assert batch["input_ids"][row, : len(prompt)].tolist() == prompt
        assert batch["labels"][row, len(prompt)] == ids[f"<|label:{example.answer}|>"]
        assert batch["attention_mask"][row].sum() == len(prompt) + 1


def test_text_answer_is_learned_with_its_end_of_turn(recipe_of: Build) -> None:
    prepared = prepare(recipe_of(task={"label_tokens": False}), None)
    assert prepared.task.added_tokens == ()
    for example, encoded in zip(prepared.data.training, prepared.training, strict=True):
        assert prepared.tokenizer.decode(encoded.answer) == f"{example.answer}<|im_end|>"


def test_too_long_a_prompt_loses_words_and_is_counted(recipe_of: Build) -> None:
    whole = prepare(recipe_of(), None)
    limit = whole.counts.longest - 4
    cut = prepare(recipe_of(max_length=limit), None)
    assert cut.counts.longest <= limit
    changed = [i for i, (a, b) in enumerate(zip(whole.training, cut.training, strict=True)) if a != b]
    assert len(changed) == cut.counts.truncated > 0
    for index in changed:
        assert cut.training[index].answer == whole.training[index].answer
        assert cut.training[index].prompt[-5:] == whole.training[index].prompt[-5:]


def test_example_that_cannot_fit_is_refused(recipe_of: Build) -> None:
    prepared = prepare(recipe_of(), None)
    with pytest.raises(InvalidError) as caught:
        encode_examples(prepared.data.training, prepared.task, prepared.tokenizer, 8)
    assert caught.value.reason == "TOO_LONG"


def test_length_over_the_context_is_substituted_aloud(recipe_of: Build) -> None:
    prepared = prepare(recipe_of(max_length=100_000), None)
    assert prepared.max_length == 512
    assert "100000" in prepared.substitutions[0]


def test_base_without_reserved_rows_says_what_to_do(recipe_of: Build, tmp_path_factory: pytest.TempPathFactory) -> None:
    from tests.support.tiny import make_tiny_base

    base = make_tiny_base(tmp_path_factory.mktemp("bare") / "bare", reserved=2)
    with pytest.raises(PreconditionError, match="--reserve-tokens") as caught:
        prepare(recipe_of(base=f"dir:{base}"), None)
    assert caught.value.reason == "NO_RESERVED_ROWS"
    assert prepare(recipe_of(base=f"dir:{base}", task={"label_tokens": False}), None).task.added_tokens == ()


def test_groups_have_like_lengths_and_another_order_each_epoch() -> None:
    lengths = torch.randint(10, 200, (1000,), generator=torch.Generator().manual_seed(0)).tolist()
    sampler = LengthGroupedSampler(lengths, 10, seed=0)
    first = list(sampler)
    assert sorted(first) == list(range(1000))
    padded = sum(max(lengths[i] for i in first[s : s + 10]) * 10 for s in range(0, 1000, 10))
    assert padded < 1.1 * sum(lengths)
    assert list(sampler) == first
    sampler.set_epoch(1)
    assert list(sampler) != first


def test_short_batch_is_the_last() -> None:
    lengths = [5] * 3 + [9] * 20
    order = list(LengthGroupedSampler(lengths, 4, seed=0))
    assert sorted(order) == list(range(23))


def test_padding_is_masked() -> None:
    examples = EncodedDataset([Encoded((1, 2), (3,)), Encoded((1,), (3,))])
    batch = Collator(7)([examples[0], examples[1]])
    assert batch["input_ids"].tolist() == [[1, 2, 3], [1, 3, 7]]
    assert batch["attention_mask"].tolist() == [[1, 1, 1], [1, 1, 0]]
    assert batch["labels"].tolist() == [[IGNORED, IGNORED, 3], [IGNORED, 3, IGNORED]]
