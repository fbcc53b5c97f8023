"""Two models on the same items: paired tests, corrected for their number, and what they could have seen."""
