"""In: the paper's printed numbers and this study's results tables. Out: comparisons, and a verdict on each claim."""
