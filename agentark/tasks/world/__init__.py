"""In: a family, a split and a seed. Out: questions of the generated world, whose every step can be checked exactly."""
