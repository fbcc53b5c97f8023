"""A language model as judge, over any OpenAI-compatible endpoint: scores by category, and pairs in both orders."""
