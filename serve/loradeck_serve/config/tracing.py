"""Where traces go."""

from urllib.parse import urlsplit

from pydantic import Field, field_validator

from loradeck_serve.config.strict import Strict


class Tracing(Strict):
    """OpenTelemetry traces. Off unless `endpoint` is set."""

    endpoint: str | None = Field(
        default=None,
        description="collector that takes OTLP over gRPC: http://host:4317, https:// with TLS; unset: no traces",
    )
    share: float = Field(
        default=1.0, ge=0, le=1, description="of the requests that bring no trace of their own; those that do decide it"
    )
    service: str = Field(default="loradeck", min_length=1, description="service.name of the spans")

    @field_validator("endpoint")
    @classmethod
    def _url(cls, value: str | None) -> str | None:
        if value is not None:
            parts = urlsplit(value)
            if parts.scheme not in ("http", "https") or not parts.hostname:
                raise ValueError("`endpoint` must be http://host:port or https://host:port")
        return value
