"""In: a debate's traces and its models. Out: one student per method, and a table that compares them."""
