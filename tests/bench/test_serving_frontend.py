"""The front end's benchmark: its arms against real servers of known behaviour, its figures, and its options."""

import json
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from aiohttp import ClientSession, web

import loradeck.inference.v1 as inference
from loradeck_bench.asking import connect
from loradeck_bench.children import Child
from loradeck_bench.serving.arms import Arm, GrpcArm, HttpArm, PipeArm, Round, Work
from loradeck_bench.serving.engines import arguments, idle_cores
from loradeck_bench.serving.frontend import FrontendPlan, choose_prompts, figures, measure_rounds
from loradeck_bench.serving.prompts import Prompt
from loradeck_bench.serving.rounds import interval, turns
from loradeck_bench.serving.tables import frontend_table
from loradeck_pocket import BASE
from loradeck_registry.errors import LoradeckError, PreconditionError, UnavailableError
from tests.bench.test_children import wait_for

PROMPTS = [Prompt(f"text {number}", (number, 7)) for number in range(6)]


class Doors(inference.InferenceServiceServicer):
    """Answers with as many tokens as asked, or with two to a text with a 3 in it; notes how many run at once."""

    running = most = 0

    async def Generate(self, request: Any, context: Any) -> AsyncIterator[Any]:
        self.running += 1
        self.most = max(self.most, self.running)
        tokens = 2 if "3" in request.prompt else request.sampling.max_tokens
        for _ in range(tokens):
            yield inference.GenerateResponse(chunk=inference.GenerationChunk(text="x", tokens=1))
        self.running -= 1
        usage = inference.Usage(prompt_tokens=2, output_tokens=tokens)
        final = inference.GenerationFinal(text="x" * tokens, usage=usage)
        yield inference.GenerateResponse(final=final)

    async def AnswerShort(self, request: Any, context: Any) -> Any:
        usage = inference.Usage(prompt_tokens=2, output_tokens=request.sampling.max_tokens)
        return inference.AnswerShortResponse(answer="x", usage=usage)


@pytest.fixture
async def doors() -> AsyncIterator[tuple[GrpcArm, Doors]]:
    server, servicer = grpc.aio.server(), Doors()
    inference.add_InferenceServiceServicer_to_server(servicer, server)  # type: ignore[no-untyped-call]
    address = f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
    await server.start()
    async with connect(address) as client:
        yield GrpcArm(client), servicer
    await server.stop(None)


async def test_grpc_arm_streams_and_calls(doors: tuple[GrpcArm, Doors]) -> None:
    arm, servicer = doors
    streamed = await arm.run(Work(PROMPTS, 5, 2))
    assert streamed.counts == (5, 5, 5, 2, 5, 5)
    assert streamed.tokens == 27
    assert len(streamed.ttft_ms) == 6
    assert all(0 < value < 1000 * streamed.seconds for value in streamed.ttft_ms)
    assert servicer.most == 2
    whole = await arm.run(Work(PROMPTS, 5, 2, stream=False))
    assert (whole.tokens, whole.ttft_ms) == (30, ())


async def test_only_prompts_with_full_answers_are_taken(doors: tuple[GrpcArm, Doors]) -> None:
    arm, _ = doors
    plan = FrontendPlan(streams=8, output_tokens=4, prompt_tokens=20)
    prompts = await choose_prompts(arm, BASE, plan)
    assert len(prompts) == 8
    assert not any("3" in prompt.text for prompt in prompts)


class Never:
    """Answers everything with one token."""

    name = "never"

    async def run(self, work: Work) -> Round:
        return Round(len(work.prompts), 1.0, (), (1,) * len(work.prompts))


async def test_too_few_full_answers_are_an_error() -> None:
    with pytest.raises(PreconditionError, match="only 0 of 32 prompts get 4 tokens"):
        await choose_prompts(Never(), BASE, FrontendPlan(streams=8, output_tokens=4, prompt_tokens=20))


@pytest.fixture
async def web_session() -> AsyncIterator[ClientSession]:
    async def complete(request: web.Request) -> web.StreamResponse:
        body = await request.json()
        if body["model"] != "m":
            return web.Response(status=404, text="no such model")
        usage = {"completion_tokens": body["max_tokens"]}
        if not body["stream"]:
            return web.json_response({"choices": [{"text": "xx"}], "usage": usage})
        response = web.StreamResponse()
        await response.prepare(request)
        for event in ({"choices": [{"text": ""}]}, {"choices": [{"text": "x"}]}, {"choices": [], "usage": usage}):
            await response.write(f"data: {json.dumps(event)}\n\n".encode())
        await response.write(b"data: [DONE]\n\n")
        return response

    application = web.Application()
    application.router.add_post("/v1/completions", complete)
    runner = web.AppRunner(application)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    async with ClientSession(f"http://127.0.0.1:{runner.addresses[0][1]}") as session:
        yield session
    await runner.cleanup()


async def test_http_arm_streams_and_calls(web_session: ClientSession) -> None:
    arm = HttpArm(web_session, "m")
    streamed, whole = [await arm.run(Work(PROMPTS, 5, 3, stream=stream)) for stream in (True, False)]
    assert (streamed.tokens, whole.tokens) == (30, 30)
    assert all(0 < value < 1000 * streamed.seconds for value in streamed.ttft_ms)
    with pytest.raises(UnavailableError, match="404: no such model"):
        await HttpArm(web_session, "other").run(Work(PROMPTS, 5, 3))


ENGINE = """
import json, sys
print(json.dumps({"ready": True}), flush=True)
for line in sys.stdin:
    order = json.loads(line)
    n = len(order["prompts"])
    if order["output_tokens"] == 99:
        print(json.dumps({"error": "too much"}), flush=True)
    elif order["output_tokens"] == 98:
        sys.exit("died of it")
    else:
        answer = {"tokens": n * order["output_tokens"], "seconds": 0.5, "ttft_ms": [1.0] * n, "latency_ms": [2.0] * n}
        print(json.dumps(answer), flush=True)
"""


async def test_pipe_arm_orders_rounds_and_reports_failures(tmp_path: Path) -> None:
    with Child("engine", [sys.executable, "-c", ENGINE], tmp_path / "log", pipes=True) as child:
        arm = PipeArm(child)
        assert (await arm.read())["ready"]
        found = await arm.run(Work(PROMPTS, 5, 3))
        assert (found.tokens, found.tokens_per_s, found.ttft_ms) == (30, 60.0, (1.0,) * 6)
        with pytest.raises(LoradeckError, match="too much"):
            await arm.run(Work(PROMPTS, 99, 3))
        with pytest.raises(LoradeckError, match="died of it"):
            await arm.run(Work(PROMPTS, 98, 3))


def one(tokens: int, seconds: float, ttft: float = 1.0) -> Round:
    return Round(tokens, seconds, (ttft, ttft), (tokens // 2, tokens // 2))


def test_figures_are_medians_of_rounds_and_of_their_ratios() -> None:
    streams = {
        "in_process": [one(100, 1.0), one(100, 2.0), one(100, 4.0)],
        "grpc": [one(90, 1.0), one(80, 2.0), one(98, 4.0)],
        "http": [one(50, 1.0), one(50, 2.0), one(50, 4.0)],
    }
    single = {
        "in_process": [one(4, 1.0, ttft) for ttft in (4.0, 5.0, 6.0)],
        "grpc": [one(4, 1.0, ttft) for ttft in (5.0, 7.0, 7.5)],
        "http": [one(4, 1.0, 9.0)] * 3,
    }
    result = figures({"streams": streams, "unary": streams, "single": single})
    assert (result["in_process_tokens_per_s"], result["grpc_tokens_per_s"], result["http_tokens_per_s"]) == (50, 40, 25)
    assert result["grpc_ratio_in_process"] == pytest.approx(0.9)
    assert result["grpc_unary_ratio_http"] == pytest.approx(1.8)
    assert (result["in_process_ttft_ms"], result["ttft_overhead_ms"]) == (5.0, 2.0)
    low, high = result["ttft_overhead_ms_interval"]
    assert 1.0 <= low <= 1.5 <= high <= 2.0
    assert result["missing_tokens"] == {}
    assert frontend_table(result).row_count == 10
    short = Round(7, 1.0, (), (4, 3))
    assert figures({"streams": streams, "unary": streams | {"http": [short] * 3}, "single": single})[
        "missing_tokens"
    ] == {"unary http": 3}


async def test_arms_take_turns_and_the_first_round_is_left_out() -> None:
    seen: list[tuple[str, int, bool]] = []

    class Noting:
        def __init__(self, name: str) -> None:
            self.name = name

        async def run(self, work: Work) -> Round:
            seen.append((self.name, len(work.prompts), work.stream))
            return one(10, 1.0)

    arms: list[Arm] = [Noting("a"), Noting("b")]
    plan = FrontendPlan(rounds=2, single=2)
    rounds = await measure_rounds(arms, PROMPTS, plan, lambda text: None)
    assert {kind: len(found["a"]) for kind, found in rounds.items()} == {"streams": 2, "unary": 2, "single": 2}
    assert [name for name, _, _ in seen[:6]] == ["a", "b", "b", "a", "a", "b"]
    assert [prompts for _, prompts, _ in seen] == [6] * 12 + [2] * 6
    assert [stream for _, _, stream in seen] == [True] * 6 + [False] * 6 + [True] * 6


def test_turns_alternate_their_direction() -> None:
    assert list(turns(1, "ab")) == [(-1, "a"), (-1, "b"), (0, "b"), (0, "a")]


def test_interval_narrows_around_the_median() -> None:
    low, high = interval([1.0, 1.1, 0.9, 1.05, 0.95, 1.0, 1.02, 0.98, 5.0])
    assert 0.9 <= low <= 1.0 <= high <= 1.1


def test_engine_arguments_become_a_command_line() -> None:
    given = {"max_model_len": 165, "enforce_eager": True, "enable_prefix_caching": False}
    assert list(arguments(given)) == ["--max-model-len", "165", "--enforce-eager", "--no-enable-prefix-caching"]


def test_a_spinning_process_is_seen(tmp_path: Path) -> None:
    started = [tmp_path / name for name in ("spinning", "waiting")]
    begin = "import sys, time; open(sys.argv[1], 'w').close()\n"
    spin, wait = ([sys.executable, "-c", begin + rest] for rest in ("while True: pass", "time.sleep(600)"))
    with (
        Child("spinning", [*spin, str(started[0])], tmp_path / "spinning.log") as spinning,
        Child("waiting", [*wait, str(started[1])], tmp_path / "waiting.log") as waiting,
    ):
        # To start takes time of a core too.
        wait_for(lambda: all(path.exists() for path in started))
        found = idle_cores({"spinning": spinning.pid, "waiting": waiting.pid}, seconds=1.0)
    assert found["spinning"] > 0.01
    assert found["spinning"] > 2 * found["waiting"]
