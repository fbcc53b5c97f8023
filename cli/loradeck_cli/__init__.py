"""The one command. Each group is loaded only when it is called, so that `--help` stays instant."""
