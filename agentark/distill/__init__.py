"""In: selected traces and a base model. Out: a student trained by SFT, R-SFT, DA or PAD, and its learning curve."""
