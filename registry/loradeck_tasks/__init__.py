"""The contract that travels with a revision: how its prompts are rendered, its answers parsed, its service proved."""
