"""Text: prompts to token ids off the event loop, token ids back to text as they come."""
