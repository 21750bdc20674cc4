"""In: a family, a split and a seed. Out: questions of the generated world, whose every step has an exact truth."""
