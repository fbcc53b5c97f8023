"""A server that answers at once, without a model: `python -m loradeck_bench.load.client.answering --chunks N`.

It says its address in one line on standard output, and ends with its input or on SIGTERM.
"""

import asyncio
import signal
import sys
from collections.abc import AsyncIterator
from typing import Any

import grpc

import loradeck.inference.v1 as inference
from loradeck_bench.loop import run_fast

DIGEST = "sha256:" + "0" * 64


class Answering(inference.InferenceServiceServicer):
    """The same label for every text, the same stream of `chunks` tokens for every question."""

    def __init__(self, chunks: int) -> None:
        who = inference.Provenance(adapter="none", revision=1, digest=DIGEST)
        self._label = inference.ClassifyResponse(
            label="a", probabilities=[inference.LabelProbability(label="a", probability=1.0)], provenance=who,
            usage=inference.Usage(prompt_tokens=1),
        )  # fmt: skip
        chunk = inference.AnswerLongResponse(chunk=inference.GenerationChunk(text=" word", tokens=1))
        usage = inference.Usage(prompt_tokens=1, output_tokens=chunks)
        final = inference.GenerationFinal(text=" word" * chunks, provenance=who, usage=usage)
        self._stream = [chunk] * chunks + [inference.AnswerLongResponse(final=final)]

    async def Classify(self, request: Any, context: Any) -> Any:
        """One label, at once."""
        return self._label

    async def AnswerLong(self, request: Any, context: Any) -> AsyncIterator[Any]:
        """All chunks, one message each."""
        for message in self._stream:
            yield message


async def serve(chunks: int) -> None:
    """Serve until the process is told to end."""
    server = grpc.aio.server()
    inference.add_InferenceServiceServicer_to_server(Answering(chunks), server)  # type: ignore[no-untyped-call]
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    print(f"127.0.0.1:{port}", flush=True)
    ended = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, ended.set)
    await ended.wait()
    await server.stop(None)


if __name__ == "__main__":
    run_fast(serve(int(sys.argv[sys.argv.index("--chunks") + 1])))
