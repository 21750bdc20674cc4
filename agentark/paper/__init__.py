"""In: the paper's printed numbers and this study's results tables. Out: comparisons of the two, and verdicts on each claim."""
