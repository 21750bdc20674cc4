"""In: a notebook's name and parameters. Out: its executed page and its outputs, complete or not at all."""
