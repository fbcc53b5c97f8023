"""Sends raw prompts to adapters of kind `generate` and to the base, streamed, and fills in the records."""

from collections.abc import Callable, Mapping, Sequence

from loradeck_bench.load.plan import Subject
from loradeck_bench.load.record import RequestRecord
from loradeck_client import AsyncClient, Sampling

SECONDS = 120.0
"""Deadline of one request."""


class PromptAsker:
    """An `Ask` of the load generator for subjects whose rows have a `prompt`; greedy decoding."""

    def __init__(self, client: AsyncClient, subjects: Mapping[str, Subject]) -> None:
        self._client = client
        self._subjects = subjects

    async def __call__(self, record: RequestRecord, now: Callable[[], float]) -> None:
        """Ask, and fill in text, tokens, chunk times and who answered. Raises LoradeckError."""
        subject = self._subjects[record.adapter]
        stream = self._client.generate(
            prompt=subject.rows[record.row]["prompt"],
            adapter=record.adapter,
            sampling=Sampling(temperature=0.0, max_tokens=subject.limit),
            timeout=SECONDS,
        )
        async with stream:
            async for chunk in stream:
                moment = now()
                if record.first is None:
                    record.first = moment
                record.chunks.append((moment, chunk.tokens))
            answer = await stream.result()
        provenance = answer.provenance
        record.text = answer.text
        record.answered_by, record.revision, record.digest = (
            provenance.adapter, provenance.revision, provenance.digest,
        )  # fmt: skip
        record.residency = provenance.residency
        record.queue_seconds, record.load_seconds = provenance.queue_seconds, provenance.load_seconds
        record.prompt_tokens, record.output_tokens = answer.usage.prompt_tokens, answer.usage.output_tokens
        record.cached_prompt_tokens = answer.usage.cached_prompt_tokens


def prompt_subjects(references: Sequence[str], prompts: Sequence[str], max_tokens: int) -> dict[str, Subject]:
    """Subjects that all get the same prompts; an empty reference is the base."""
    rows = tuple({"prompt": prompt} for prompt in prompts)
    return {reference: Subject(reference, "generate", rows, max_tokens=max_tokens) for reference in references}
