"""In: traces of debates and their questions. Out: stated answers, verdicts on steps, and the traces to train on."""
