"""In: a debate's traces and its models. Out: a student by each method, and one table that compares them."""
