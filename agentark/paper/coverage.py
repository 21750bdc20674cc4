"""Each table and figure of the paper: what it shows, and where its counterpart stands here or why there is none."""

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
    """One table or figure. anchor: its counterpart's heading on reports/experiments.html; reason: why there is none, or
    where it differs from what the paper shows. One of them at least is given."""

    item: str
    shows: str
    anchor: str = ""
    reason: str = ""


OF_AN_ANSWER = "long answers after training on GSM8K, by student: F1, ROUGE, BERTScore"
PICTURE = "its numbers are not printed"
STUDENTS = {9: "Qwen3-8B", 10: "Llama3-8B-Instruct", 11: "Gemma-7B", 12: "Qwen3-1.7B", 13: "Qwen3-0.6B"}

ITEMS = [
    Item("Figure 3", "accuracy and gain by teacher, student, method and training set", GRID),
    Item("Figure 4", "5, 10 and 20 agents; a small and a large student", AGENTS, PICTURE),
    Item("Figure 5", "accuracy by size of the training set and method", SIZES, PICTURE),
    Item("Figure 6", OF_AN_ANSWER, OUTSIDE, "printed: ten numbers in Appendix D.1; BERTScore at scale full alone"),
    Item("Figure 7", "Qwen2.5-VL-32B to 3B, taught by text", VISION, f"{PICTURE}; our vision tower is random"),
    Item("Figure 8", OF_AN_ANSWER, OUTSIDE, "as Figure 6"),
    Item("Figure 9", OF_AN_ANSWER, OUTSIDE, "as Figure 6"),
    Item("Figure 10", "accuracy by size of the training set and method", SIZES, PICTURE),
    Item("Table 1", "likelihood of gold reasoning; four scores of a judge", REASONING,
         "the four are counted exactly: tiny models cannot judge"),
    Item("Table 2", "TruthfulQA after training on GSM8K", REASONING,
         "TruthfulQA at scale full alone; here questions put another way, and misleading hints"),
    Item("Table 3", "questions and trajectories kept", EXTRACTION),
    Item("Table 4", "size of the reward model by size of the policy", TRAINING),
    Item("Table 5", "PPO in place of GRPO", TRAINING),
    Item("Table 6", "cards and hours of training; one pass against a debate", COST),
    Item("Table 7", "R-SFT then DA, PAD then DA", TRAINING),
    Item("Table 8", "bases; answer-only SFT", GRID),
    *(Item(f"Table {n}", f"the grid of {name}", GRID, "ours has other, tiny students") for n, name in STUDENTS.items()),
]  # fmt: skip


def table(items: list[Item]) -> str:
    """The list as a Markdown table whose links lead to headings of the page that it stands on."""
    lines = ["| in the paper | what it shows | here |", "|---|:---|:---|"]
    for i in items:
        link = f"[below](#{i.anchor})" if i.anchor else ""
        lines.append(f"| {i.item} | {i.shows} | {'; '.join(filter(None, (link, i.reason)))} |")
    return "\n".join(lines)
