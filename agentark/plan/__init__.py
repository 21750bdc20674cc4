"""In: parameters, models and hardware. Out: measured speeds, and the time and memory that a run takes."""
