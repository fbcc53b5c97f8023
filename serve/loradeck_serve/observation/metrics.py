"""Prometheus metrics. Labels are bounded: after `MOST_ADAPTERS` names, further ones are counted as `other`."""

from importlib.metadata import PackageNotFoundError, version

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, Info, disable_created_metrics

from loradeck_serve.domain import Residency

MOST_ADAPTERS = 200
BASE = "base"
OTHER = "other"
NONE = "none"
_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)
_TOKEN_SECONDS = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1)


class Metrics:
    """All metrics of one server, in a collector registry of its own."""

    def __init__(self) -> None:
        # For the whole process: a family of times beside each counter and histogram, which nobody asks for.
        disable_created_metrics()  # type: ignore[no-untyped-call]
        self.registry = registry = CollectorRegistry()
        self._names: set[str] = set()

        def counter(name: str, text: str, *labels: str) -> Counter:
            return Counter(name, text, labels, registry=registry)

        def gauge(name: str, text: str, *labels: str) -> Gauge:
            return Gauge(name, text, labels, registry=registry)

        def histogram(name: str, text: str, buckets: tuple[float, ...], *labels: str) -> Histogram:
            return Histogram(name, text, labels, registry=registry, buckets=buckets)

        self.requests = counter(
            "loradeck_requests_total", "Requests that ended, by outcome.", "adapter", "method", "code"
        )
        self.errors = counter("loradeck_errors_total", "Requests that failed, by reason.", "adapter", "reason")
        self.prompt_tokens = counter("loradeck_prompt_tokens_total", "Prompt tokens of dispatched requests.", "adapter")
        self.output_tokens = counter("loradeck_output_tokens_total", "Generated tokens.", "adapter")
        self.first_token = histogram(
            "loradeck_time_to_first_token_seconds", "From arrival to the first output.", _SECONDS, "adapter"
        )
        self.per_token = histogram(
            "loradeck_time_per_output_token_seconds", "After the first one.", _TOKEN_SECONDS, "adapter"
        )
        self.duration = histogram("loradeck_request_duration_seconds", "Whole request.", _SECONDS, "adapter", "method")
        self.queue_wait = histogram(
            "loradeck_queue_wait_seconds", "Before dispatch to the engine.", _SECONDS, "adapter"
        )
        self.load_seconds = histogram(
            "loradeck_adapter_load_seconds", "Loads, by where the files were.", _SECONDS, "adapter", "tier"
        )
        self.load_failures = counter(
            "loradeck_adapter_load_failures_total", "Refused loads, by reason.", "adapter", "reason"
        )
        self.residency = counter("loradeck_residency_total", "Where adapters were on arrival.", "adapter", "residency")
        self.resident = gauge("loradeck_adapters_resident", "Adapters in the engine's host memory.")
        self.slots_used = gauge("loradeck_slots_used", "Adapter slots in use.")
        self.swaps = counter(
            "loradeck_adapter_swaps_total", "Times an adapter came into a slot that it was not in.", "adapter"
        )
        self.evictions = counter(
            "loradeck_adapter_evictions_total", "Adapters taken out of host memory to make way for others.", "adapter"
        )
        self.flips = counter("loradeck_alias_flips_total", "Aliases that began to mean another revision.", "adapter")
        self.flip_seconds = histogram("loradeck_alias_flip_seconds", "From noticing a move to the flip.", _SECONDS)
        self.flip_failures = counter(
            "loradeck_alias_flip_failures_total", "Moves that could not be followed.", "adapter", "reason"
        )
        self.running = gauge("loradeck_requests_running", "Requests in the engine.", "adapter")
        self.waiting = gauge("loradeck_requests_waiting", "Requests admitted and not in the engine yet.", "adapter")
        self.kv_used = gauge("loradeck_kv_cache_used_ratio", "Share of the key-value cache in use.")
        self.engine_running = gauge("loradeck_engine_requests_running", "Requests in the engine's batch.")
        self.engine_waiting = gauge("loradeck_engine_requests_waiting", "Requests in the engine's own queue.")
        self.engine_restarts = counter("loradeck_engine_restarts_total", "Restarts after the engine died.")
        self.registry_age = gauge("loradeck_registry_age_seconds", "Since the registry was last read successfully.")
        self.tasks = gauge("loradeck_tasks", "Tasks of the server's event loop; they grow with load and go with it.")
        self.certificate_ends = gauge(
            "loradeck_certificate_expiry_timestamp_seconds", "When the doors' certificate ends; 0 without TLS."
        )
        self.ready = gauge("loradeck_ready", "1 while the server takes requests.")
        self._build = Info("loradeck_build", "Versions.", registry=registry)
        self._base = Info("loradeck_base", "The base model served.", registry=registry)

    def describe(self, engine_version: str, dtype: str, base: str, revision: int, digest: str) -> None:
        """Set the facts that do not change."""
        try:
            own = version("loradeck")
        except PackageNotFoundError:
            own = "unknown"
        self._build.info({"version": own, "engine": engine_version, "dtype": dtype})
        self._base.info({"name": base, "revision": str(revision), "digest": digest})

    def label(self, adapter: str | None) -> str:
        """The label for an adapter name; empty is the base, None a call that never got as far as an adapter."""
        if not adapter:
            return NONE if adapter is None else BASE
        if adapter in self._names:
            return adapter
        if len(self._names) >= MOST_ADAPTERS:
            return OTHER
        self._names.add(adapter)
        return adapter

    def arrived_at(self, adapter: str, residency: Residency) -> None:
        """An adapter's residency when a request came."""
        if residency is not Residency.NONE:
            self.residency.labels(self.label(adapter), residency.value).inc()
