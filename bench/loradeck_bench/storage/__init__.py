"""What models, adapters and revisions cost on disk: measured in a registry, computed from shapes, and as deltas."""

from loradeck_bench.storage.held import StorageRow, storage_report, storage_rows

__all__ = ["StorageRow", "storage_report", "storage_rows"]
