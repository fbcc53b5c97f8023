"""Generate: any task of kind `generate`, a raw prompt, or a message to the base."""

from collections.abc import AsyncGenerator

from loradeck_registry.errors import InvalidError
from loradeck_serve.config import Limits
from loradeck_serve.domain import Call, Chunk, Final, GenerateRequest
from loradeck_serve.handlers.fields import check_sampling, check_text
from loradeck_serve.handlers.generation import Generation
from loradeck_serve.handlers.targets import Target, Targets
from loradeck_serve.live import Live
from loradeck_serve.text.tokenizers import Rendered, Tokenizers


class GenerateHandler:
    """Free generation."""

    def __init__(self, targets: Targets, tokenizers: Tokenizers, generation: Generation, limits: Live[Limits]) -> None:
        self._targets = targets
        self._tokenizers = tokenizers
        self._generation = generation
        self._limits = limits

    async def generate(self, call: Call, request: GenerateRequest) -> AsyncGenerator[Chunk | Final]:
        """The text in chunks, then one Final. Raises what is wrong with the request before anything is generated."""
        given = [n for n in ("fields", "prompt", "message") if getattr(request, n) is not None]
        if len(given) != 1:
            raise InvalidError("give exactly one of `fields`, `prompt`, `message`", reason="EMPTY_FIELD", field="input")
        check_sampling(request.sampling, self._limits.now, call.access.grants)
        target = await self._targets.find(call, request.adapter, "generate")
        prompt, field = await self._prompt(target, request)
        if not prompt.token_ids:
            raise InvalidError(f"`{field}` renders to an empty prompt", reason="EMPTY_FIELD", field=field)
        return self._generation.run(call, target, prompt, request.sampling, field)

    async def _prompt(self, target: Target, request: GenerateRequest) -> tuple[Rendered, str]:
        if request.prompt is not None:
            check_text(request.prompt, "prompt", self._limits.now)
            return await self._tokenizers.encode(target.task, request.prompt, special=True), "prompt"
        if request.message is not None:
            if target.own_task:
                raise InvalidError(
                    "`message` is for requests to a base without a task of its own: use `fields` or `prompt`",
                    reason="NOT_A_BASE",
                    field="message",
                )
            check_text(request.message, "message", self._limits.now)
            return await self._tokenizers.render(target.task, {"prompt": request.message}), "message"
        assert request.fields is not None
        if not target.own_task:
            raise InvalidError(
                "`fields` fill the template of an adapter's task, and none is named: use `prompt` or `message`",
                reason="NO_TEMPLATE",
                field="fields",
            )
        wanted, given = set(target.task.fields), set(request.fields)
        if wanted != given:
            missing = sorted(wanted - given)
            odd = missing or sorted(given - wanted)
            what = "is missing" if missing else "is not in the template"
            raise InvalidError(
                f"`fields.{odd[0][:80]}` {what}; the task takes: {', '.join(target.task.fields) or 'no fields'}",
                reason="MISSING_FIELD" if missing else "UNKNOWN_FIELD",
                field=f"fields.{odd[0][:80]}",
            )
        for name, value in request.fields.items():
            check_text(value, f"fields.{name}", self._limits.now, required=False)
        longest = max(request.fields, key=lambda name: len(request.fields[name] if request.fields else ""), default="")
        return await self._tokenizers.render(target.task, request.fields), f"fields.{longest}"
