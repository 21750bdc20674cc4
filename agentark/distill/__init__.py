"""In: selected traces and a base model. Out: a trained student, by SFT, R-SFT, DA or PAD, with its learning curve."""
