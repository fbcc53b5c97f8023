"""The cliff against a real gRPC server whose adapters beyond the slots are slow."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import grpc

import loradeck.inference.v1 as inference
from loradeck_bench.serving.cliff import CliffPlan, measure_on_server


class Slots(inference.InferenceServiceServicer):
    """Answers adapters `cliff-0` to `cliff-3` at once and all others after 0.3 s."""

    asked: set[str]

    async def Generate(self, request: Any, context: Any) -> AsyncIterator[Any]:
        self.asked.add(request.adapter)
        await asyncio.sleep(0.01 if int(request.adapter.removeprefix("cliff-")) < 4 else 0.3)
        yield inference.GenerateResponse(chunk=inference.GenerationChunk(text="x", tokens=1))
        provenance = inference.Provenance(adapter=request.adapter)
        usage = inference.Usage(prompt_tokens=3, output_tokens=1)
        yield inference.GenerateResponse(final=inference.GenerationFinal(text="x", provenance=provenance, usage=usage))


async def test_adapters_beyond_the_slots_show() -> None:
    server = grpc.aio.server()
    servicer = Slots()
    servicer.asked = set()
    inference.add_InferenceServiceServicer_to_server(servicer, server)  # type: ignore[no-untyped-call]
    address = f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
    await server.start()
    plan = CliffPlan(
        slots=4, multiples=(1, 2), seconds=3.0, saturation_seconds=4.0, share=0.9, concurrency=2, max_tokens=1
    )
    said: list[str] = []
    try:
        result = await measure_on_server(
            address, [f"cliff-{number}" for number in range(8)], ["a", "b"], plan, said.append
        )
    finally:
        await server.stop(None)
    assert [(row["adapters"], row["slots"], row["failed"]) for row in result["rows"]] == [(4, 4, 0), (8, 4, 0)]
    assert result["rows"][1]["ttft_p99_ms"] > 300 > result["rows"][0]["ttft_p50_ms"]
    assert result["p99_ratio"] == result["rows"][1]["ttft_p99_ms"] / result["rows"][0]["ttft_p99_ms"]
    assert result["rate_requests_per_s"] == 0.9 * result["saturation_requests_per_s"]
    assert len(servicer.asked) == 8
    assert len(said) == 2
    assert result["saturation_requests_per_s"] < result["saturation_as_many_as_slots_requests_per_s"]
