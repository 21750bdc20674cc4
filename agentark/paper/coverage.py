"""Each table and figure of the paper: what it shows, and its counterpart here or why there is none."""

from dataclasses import dataclass

# Headings of reports/experiments.html, as their anchors.
GRID = "Figure-3-and-Tables-8-to-13:-the-grid"
AGENTS = "Figure-4:-how-many-agents,-and-how-they-talk"
SIZES = "Figures-5-and-10:-the-size-of-the-training-set"
REASONING = "Tables-1-and-2:-reasoning-and-robustness"
EXTRACTION = "Table-3:-what-extraction-keeps"
TRAINING = "Tables-4,-5-and-7:-choices-in-training"
COST = "Table-6:-cost"
OUTSIDE = "Figures-6,-8-and-9:-out-of-domain"
VISION = "Figure-7:-a-student-that-also-sees"


@dataclass(frozen=True)
class Item:
    """One table or figure. anchor: the heading of its counterpart in reports/experiments.html; reason: why there is no
    counterpart, or how it differs from the paper's. At least one of the two is given."""

    item: str
    shows: str
    anchor: str = ""
    reason: str = ""


LONG_ANSWERS = "long answers after training on GSM8K, by student: F1, ROUGE, BERTScore"
NOT_PRINTED = "its numbers are not printed"
STUDENTS = {9: "Qwen3-8B", 10: "Llama3-8B-Instruct", 11: "Gemma-7B", 12: "Qwen3-1.7B", 13: "Qwen3-0.6B"}

ITEMS = [
    Item("Figure 3", "accuracy and gain by teacher, student, method and training set", GRID),
    Item("Figure 4", "5, 10 and 20 agents; a small and a large student", AGENTS, NOT_PRINTED),
    Item("Figure 5", "accuracy by size of the training set and method", SIZES, NOT_PRINTED),
    Item("Figure 6", LONG_ANSWERS, OUTSIDE, "ten numbers are printed in Appendix D.1; BERTScore only at scale full"),
    Item("Figure 7", "Qwen2.5-VL-32B to 3B, distilled from text", VISION, f"{NOT_PRINTED}; our vision tower is random"),
    Item("Figure 8", LONG_ANSWERS, OUTSIDE, "see Figure 6"),
    Item("Figure 9", LONG_ANSWERS, OUTSIDE, "see Figure 6"),
    Item("Figure 10", "accuracy by size of the training set and method", SIZES, NOT_PRINTED),
    Item("Table 1", "likelihood of gold reasoning; four scores of a judge", REASONING,
         "the four are counted exactly, because tiny models cannot judge"),
    Item("Table 2", "TruthfulQA after training on GSM8K", REASONING,
         "TruthfulQA only at scale full; here questions put in another way, and misleading hints"),
    Item("Table 3", "questions and trajectories kept", EXTRACTION),
    Item("Table 4", "size of the reward model by size of the policy", TRAINING),
    Item("Table 5", "PPO instead of GRPO", TRAINING),
    Item("Table 6", "cards and hours of training; one pass against a debate", COST),
    Item("Table 7", "R-SFT then DA, PAD then DA", TRAINING),
    Item("Table 8", "bases; answer-only SFT", GRID),
    *(Item(f"Table {n}", f"the grid of {name}", GRID, "our students are tiny models") for n, name in STUDENTS.items()),
]  # fmt: skip


def table(items: list[Item]) -> str:
    """The list as a Markdown table whose links lead to headings of the same page."""
    lines = ["| in the paper | what it shows | here |", "|---|:---|:---|"]
    for i in items:
        link = f"[below](#{i.anchor})" if i.anchor else ""
        lines.append(f"| {i.item} | {i.shows} | {'; '.join(filter(None, (link, i.reason)))} |")
    return "\n".join(lines)
