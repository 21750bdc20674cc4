"""In: traces of debates and their questions. Out: stated answers, verdicts on each step, and the traces to train on."""
