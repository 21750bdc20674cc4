"""In: questions, a protocol and an engine. Out: the traces of every agent in every round."""
