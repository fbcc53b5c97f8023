"""Whether the server takes requests at all."""

from loradeck_registry.errors import UnavailableError


class Gate:
    """Whether requests are let in. Closed with a reason before the server is ready and while it drains."""

    def __init__(self) -> None:
        self.closed: str | None = "STARTING"

    def check(self) -> None:
        """Raise UnavailableError if closed."""
        if self.closed is not None:
            doing = {"STARTING": "starting", "DRAINING": "shutting down"}.get(self.closed, "restarting its engine")
            # An engine takes half a minute and more; who stops has another server beside it, or a new one soon.
            seconds = 1 if self.closed == "DRAINING" else 5
            raise UnavailableError(f"the server is {doing}: try again", reason=self.closed, retry_after=seconds)

    def check_staying(self) -> None:
        """Raise UnavailableError while the server shuts down."""
        if self.closed == "DRAINING":
            self.check()
