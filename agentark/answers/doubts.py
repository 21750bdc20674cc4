"""Patterns for phrases that retract or doubt the answer before them."""

import re

# After such a phrase a trace continues to reason, so the statement before it is not final. After a box fewer phrases
# count (WAIT instead of DOUBT). EvolvingLMMs-Lab/lmms-eval#1511: a phrase counts only if it begins a new thought, at
# the start of a sentence and before a comma or a word that continues the thought. "Wait 20 minutes", "alternatively
# called" and "not sure of the date" are not doubts.
START = r"(?:^|[^\w\s,'’-])\W{0,4}(?:(?:but|oh|no|so|and|or|hmm+|okay|ok)\b\W{1,3}){0,2}"
AGAIN = (
    r"wait\b(?=\W*$|\s*[,.!?:…—–-]|\s*\n|\s+(?:that|this|i|it|no|not|but|is|isn|are|maybe|perhaps|actually|let|why|what"
    r"|how|we|there|so|wait|hold|did|does|if (?:we|i|it)|a (?:second|minute|moment|sec)"
    r"|the (?:answer|question|problem|correct))\b)|hmm+\b|hold on\b|scratch that\b|correction\s*:|oops\b"
    r"|no,|sorry\b(?! (?:for|about))|on second thoughts?\b|that(?:['’]s| is| was) (?:wrong|incorrect|not (?:right|correct))\b"
    r"|i made an? (?:\w+ )?(?:mistake|error)\b(?! (?:earlier|before|previously|in))"
    r"|actually,? (?:no|wait|that|it should|it must|i (?:made|mis|think)|let me|the (?:answer|correct))\b"
)
SECOND_METHOD = r"(?:you|we|one) (?:can|could|may) (?:also )?(?:calc|comp|solve|write|use|check|think of|find|get)"
HEDGE = (
    rf"alternatively\b(?!,? {SECOND_METHOD})|not (?:entirely |completely |quite )?sure\b"
    r"|(?:let me|let['’]s|let us|i will|i['’]ll|we could)\b[^.\n]{0,60}\bdifferently\b"
    r"|thinking (?:about it )?differently"
)
PLAIN_TALK = "know|explain|show|summar|walk|break|elaborate|clarify|illustrate|describe|give|help|add|restate|list"
WAIT = re.compile(rf"{START}(?:{AGAIN})|\bwait,? (?:no|actually)\b", re.IGNORECASE)
DOUBT = re.compile(
    rf"{START}(?:{AGAIN}|{HEDGE})|\bwait,? (?:no|actually)\b|\bI(?:['’]m| am) (?:still )?not [a-z ]{{0,12}}sure\b"
    rf"|\blet me (?!{PLAIN_TALK})|\bI need to (?!note|mention|add|stress)|\bI should have\b(?! \d)",
    re.IGNORECASE,
)
# Doubt within the statement itself: "The answer might be 5, but I'm not sure."
UNSURE = re.compile(r"\bnot (?:[a-z]+ )?(?:sure|certain)\b", re.IGNORECASE)
# The start of a check, which is a doubt only if its result is another number
CHECK = re.compile(
    r"\b(?:let me|i(?: will|['’]ll)) (?:just )?(?:quickly )?(?:double[- ]?check|check|verify|confirm)\b", re.IGNORECASE
)
