"""In: the results tables. Out: the figures, tables and sentences of the pages."""
