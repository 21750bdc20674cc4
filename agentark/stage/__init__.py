"""In: the name of a notebook and its parameters. Out: its executed page and its outputs, which appear whole or not at all."""
