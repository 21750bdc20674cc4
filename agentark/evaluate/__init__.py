"""In: predictions, traces and trained models. Out: rows of the results tables, each with n and an interval."""
