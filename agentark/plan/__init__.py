"""In: parameters, models and hardware. Out: measured speeds, and the time and memory of a run."""
