"""Every check of an adapter against its base, before it is published and before an engine sees it."""
