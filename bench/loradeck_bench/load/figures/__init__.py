"""What the records of a load test add up to: times, throughput, goodput, fairness, quality; in whole and in parts."""
