"""Who answers, and waiting for a move to be followed."""

import loradeck.inference.v1 as inference
from tests.serve.conftest import Running
from tests.serve.waiting import until


async def revision_of(running: Running, reference: str = "clf") -> int:
    """The revision that answers."""
    reply = await running.inference.Classify(inference.ClassifyRequest(adapter=reference, text="x"))
    assert isinstance(reply.provenance.revision, int)
    return reply.provenance.revision


async def means(running: Running, revision: int) -> None:
    """Wait until the alias means `revision` on the server. The promised 2 s are measured by `loradeck bench swap`."""

    async def there() -> bool:
        return await revision_of(running) == revision

    await until(there)


async def let_go(running: Running, digest: str) -> None:
    """Wait until a revision has left the engine."""
    await until(lambda: digest not in running.engine.loaded)
