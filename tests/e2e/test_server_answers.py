"""A real server answers every kind of request, with adapters and without, and says who answered."""

import time
import urllib.request
from concurrent.futures import ThreadPoolExecutor

import pytest

from loradeck_client import Answer, Classification, PreconditionError, Sampling
from tests.e2e.conftest import Served
from tests.serve.deck import LABELS

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(900)]

TEXT = "The bank opened a branch and the city built a network."


def probabilities(result: Classification) -> dict[str, float]:
    """Label to probability."""
    return {p.label: p.probability for p in result.probabilities}


def test_label_tokens_classify_in_one_pass(server: Served) -> None:
    with server.client() as client:
        result = client.classify(TEXT, adapter="clf")
    found = probabilities(result)
    assert set(found) == set(LABELS)
    assert sum(found.values()) == pytest.approx(1)
    assert result.label == max(found, key=lambda label: found[label])
    assert (result.method, result.usage.output_tokens) == ("label_tokens", 0)
    by = result.provenance
    assert (by.adapter, by.revision, by.requested) == ("clf", 1, "clf")
    assert by.digest == server.deck.registry.resolve("clf@prod").digest


def test_labels_of_the_request_restrict_the_answer(server: Served) -> None:
    with server.client() as client:
        all_labels = probabilities(client.classify(TEXT, adapter="clf"))
        two = probabilities(client.classify(TEXT, adapter="clf", labels=LABELS[1:]))
    assert set(two) == set(LABELS[1:])
    for label in LABELS[1:]:
        assert two[label] == pytest.approx(all_labels[label] / (1 - all_labels[LABELS[0]]), rel=1e-3)


def test_text_labels_are_scored(server: Served) -> None:
    with server.client() as client:
        result = client.classify(TEXT, adapter="clf-text")
    assert result.method == "text_mean"
    assert set(probabilities(result)) == set(LABELS)


def test_batch_answers_as_single_requests_do(server: Served) -> None:
    texts = [TEXT, "A hospital bought a scanner.", "The school taught with tablets."]
    with server.client() as client:
        batch = client.batch_classify(texts, adapter="clf")
        single = [client.classify(text, adapter="clf") for text in texts]
    for one, other in zip(batch, single, strict=True):
        assert one.label == other.label
        assert probabilities(one) == pytest.approx(probabilities(other), rel=1e-3, abs=1e-5)


def test_short_answer_and_its_usage(server: Served) -> None:
    with server.client() as client:
        answer = client.answer_short("What opened?", context=TEXT, adapter="short")
    assert answer.usage.prompt_tokens > 10
    assert 1 <= answer.usage.output_tokens <= 12
    assert answer.finish_reason in ("stop", "length")
    assert answer.text == answer.text.strip()


def test_long_answer_streams_what_the_final_message_holds(server: Served) -> None:
    with server.client() as client, client.answer_long("What opened?", context=TEXT, adapter="long") as stream:
        chunks = list(stream)
        final = stream.result()
    assert len(chunks) > 1
    assert "".join(chunk.text for chunk in chunks) == final.text
    assert final.usage.output_tokens == 24
    assert final.finish_reason == "length"


def test_long_answer_comes_while_it_is_written(server: Served) -> None:
    # Long, and with no wait for tokens that share a chunk: whoever stalls for a moment still sees most of it come.
    many = Sampling(temperature=0, max_tokens=300)
    with (
        server.limits(chunk_milliseconds=0),
        server.client() as client,
        client.answer_long("What?", context=TEXT, adapter="long@1", sampling=many) as stream,
    ):
        chunks = list(stream)
        final = stream.result()
    assert "".join(chunk.text for chunk in chunks) == final.text
    assert final.usage.output_tokens == 300
    assert len(chunks) > 3


def test_generate_renders_the_tasks_template(server: Served) -> None:
    with server.client() as client:
        fields = {"what": "something", "topic": "banks"}
        one = client.generate(adapter="free", fields=fields).result()
        other = client.generate(adapter="free", fields=fields | {"topic": "solar power"}).result()
        raw = client.generate(prompt="The bank", sampling=Sampling(max_tokens=6)).result()
        message = client.generate(message="The bank", sampling=Sampling(max_tokens=6)).result()
    assert one.provenance.adapter == "free"
    assert one.usage.prompt_tokens != other.usage.prompt_tokens
    assert raw.provenance.adapter == server.base
    assert message.usage.prompt_tokens > raw.usage.prompt_tokens


def test_seed_fixes_a_sampled_answer(server: Served) -> None:
    with server.client() as client:
        asked = [
            client.generate(prompt="The", sampling=Sampling(temperature=1.5, seed=seed, max_tokens=16)).result().text
            for seed in (1, 1, 2)
        ]
    assert asked[0] == asked[1] != asked[2]


def test_base_requests_among_adapters_are_answered_by_the_base_exactly(server: Served) -> None:
    labels = ("Economy", "Health")
    sampling = Sampling(max_tokens=12)
    with server.client() as client:
        alone = probabilities(client.classify(TEXT, labels=labels))
        alone_text = client.generate(prompt=TEXT, sampling=sampling).result().text

        def ask(index: int) -> Classification | Answer:
            if index % 5 == 0:
                return client.classify(TEXT, labels=labels)
            if index % 5 == 1:
                return client.generate(prompt=TEXT, sampling=sampling).result()
            return client.classify(f"{TEXT} {index}", adapter=("clf", "clf@2", "clf-text")[index % 3])

        with ThreadPoolExecutor(10) as pool:
            replies = list(pool.map(ask, range(60)))
    for index, reply in enumerate(replies):
        if index % 5 == 0:
            assert isinstance(reply, Classification)
            assert probabilities(reply) == pytest.approx(alone, abs=1e-4)
        elif index % 5 == 1:
            assert isinstance(reply, Answer)
            assert reply.text == alone_text


def test_two_adapters_in_one_batch_answer_as_they_do_alone(server: Served) -> None:
    names = ("clf@1", "clf@2", "clf-text")
    with server.client() as client:
        alone = {name: probabilities(client.classify(TEXT, adapter=name)) for name in names}
        assert alone["clf@1"] != pytest.approx(alone["clf@2"], abs=0.05)
        with ThreadPoolExecutor(9) as pool:
            replies = list(pool.map(lambda index: client.classify(TEXT, adapter=names[index % 3]), range(36)))
    for index, reply in enumerate(replies):
        assert probabilities(reply) == pytest.approx(alone[names[index % 3]], abs=1e-4)


def test_wrong_task_is_refused_by_name(server: Served) -> None:
    with server.client() as client, pytest.raises(PreconditionError) as raised:
        client.classify(TEXT, adapter="short")
    assert raised.value.reason == "WRONG_TASK"
    assert raised.value.metadata["task"] == "short_qa"


def test_cancelled_stream_frees_the_engine(server: Served) -> None:
    with server.client() as client, server.admin_client() as admin:
        stream = client.answer_long("What?", context=TEXT, adapter="long", sampling=Sampling(max_tokens=300))
        next(stream)
        stream.cancel()
        begin = time.monotonic()
        while any(adapter.running_requests for adapter in admin.list()):
            assert time.monotonic() - begin < 60, "the cancelled request still runs"
            time.sleep(0.05)


def test_metrics_count_what_happened(server: Served) -> None:
    with server.client() as client:
        client.answer_short("What opened?", context=TEXT, adapter="short")
    with urllib.request.urlopen(f"http://{server.metrics}/metrics", timeout=10) as reply:
        lines = reply.read().decode().splitlines()
    values = dict(line.rsplit(" ", 1) for line in lines if not line.startswith("#"))
    assert float(values['loradeck_requests_total{adapter="short",code="OK",method="AnswerShort"}']) >= 1
    assert float(values['loradeck_output_tokens_total{adapter="short"}']) >= 1
    assert float(values['loradeck_time_to_first_token_seconds_count{adapter="short"}']) >= 1
    assert float(values["loradeck_ready"]) == 1
    assert any(name.startswith("loradeck_build_info{") for name in values)
    assert not any("What opened" in line for line in lines)


def test_no_text_of_a_request_is_logged(server: Served) -> None:
    secret = "xylophonic-platypus"
    with server.client() as client:
        client.answer_short(secret, context=secret, adapter="short")
        with pytest.raises(PreconditionError):
            client.classify(secret, adapter="short")
    assert secret not in server.log.read_text()
