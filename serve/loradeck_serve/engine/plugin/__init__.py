"""What runs inside vLLM's processes: exact adapter operations and new tokens per slot.

vLLM calls `register` in every process of every engine on the machine (entry point group `vllm.general_plugins`). It
does nothing unless the process belongs to an engine that `VllmEngine` started.
"""

import os


def register() -> None:
    """Set this process up if it is an engine process of ours. Safe to call more than once."""
    from loradeck_serve.engine.plugin.options import PluginOptions

    options = PluginOptions.from_environment()
    if options is None or options.front_end == os.getpid():
        return
    from loradeck_serve.engine import processes

    processes.ignore_interrupt()
    from loradeck_serve.engine.plugin import patches

    patches.install(options)
