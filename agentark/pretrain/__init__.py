"""In: the corpus split of the generated world and an architecture. Out: the small base models of the study."""
