"""Where the plugin changes vLLM."""

from loradeck_serve.engine.plugin.options import PluginOptions


def install(options: PluginOptions) -> None:
    """Change vLLM in this process as `options` say."""
