"""Building data sets from raw text with a model behind an OpenAI-compatible endpoint."""
