"""The local read cache: verified files by digest, and one folder per revision, shared by processes and bounded."""

from loradeck_registry.cache.cache import Cache, scratch_folder
from loradeck_registry.cache.settings import default_folder, default_limit

__all__ = ["Cache", "default_folder", "default_limit", "scratch_folder"]
