"""In: questions and an engine. Out: the traces of every agent in every round, by protocol."""
