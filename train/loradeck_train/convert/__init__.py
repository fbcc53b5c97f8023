"""From adapter to full checkpoint and back."""
