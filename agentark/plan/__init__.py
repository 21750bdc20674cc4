"""In: parameters, models and hardware. Out: measured speeds; the time and memory that a run takes."""
