"""Ways to let agents talk, behind one interface: `debate.protocols` says who speaks when, `debate.run` runs it."""
