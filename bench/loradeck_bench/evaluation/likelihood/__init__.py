"""How likely a model finds the reference answers: loss, perplexity, token accuracy, computed with transformers."""
