"""Cost of the study, and the number of answers after which a student has paid for itself (the paper's Table 6,
extended).

Every row has schema `Score` with study "cost". `setting` names what is paid for: "once" (the debates on training
questions; the training of one seed, and its `part`s), "answer" (one answer), or "break-even" (questions until a student
has paid for itself, compared with `baseline`). `metric` is the unit: "tokens" read, generated or trained on, or
"seconds" of one core (of wall clock at scale full).
"""

import json
import math
from collections.abc import Iterable
from pathlib import Path

import pandas as pd

from agentark import folder_of, root
from agentark.debate.independent import Vote
from agentark.debate.run import run_debates, texts_of
from agentark.distill import sft, step_labels
from agentark.distill.reward_model import debate_tokens
from agentark.distill.settings import Recipe
from agentark.distill.sft import example_tokens
from agentark.engines import Chat
from agentark.evaluate import stats
from agentark.evaluate.scores import score
from agentark.evaluate.stats import Estimate
from agentark.models import loading
from agentark.models.chat import prompt_ids, solve_prompt
from agentark.schemas import (
    ANSWERS_ALONE,
    CONTROLS,
    RIVALS,
    UNITS,
    CheckedTrace,
    Prediction,
    Question,
    Score,
    Seconds,
    Trace,
    Trajectory,
    frame,
    read_table,
)
from agentark.tasks.questions import question_counts


def mean_seconds(seconds: pd.DataFrame, setting: str, method: str, student: str) -> dict[str, object]:
    """A row of reports/seconds.csv: seconds per question of one system, summed over its calls."""
    per_question = float(seconds["seconds"].sum()) / seconds["question_id"].nunique()
    return dict(setting=setting, method=method, student=student, seconds_per_question=per_question)


def by_protocol(folder: Path) -> dict[str, pd.DataFrame]:
    """Read the seconds of the debate, the vote and one sample (the vote's first agent) from a folder of notebook 03."""
    rows = frame(read_table(folder / "seconds.parquet", Seconds))
    vote = rows[rows["protocol"] == "vote"]
    debate = rows[~rows["protocol"].isin(["vote", "greedy", *CONTROLS])]
    return {"debate": debate, "vote": vote, "single": vote[vote["agent"] == 1]}


def exact(value: float, n: int) -> Estimate:
    """An estimate of a number that is counted or timed once: both ends of its interval are the number itself."""
    return Estimate(float(value), float(value), float(value), n)


def teacher_seconds(folder: Path) -> pd.DataFrame:
    """Read seconds per question (index: question_id) of debate, vote and one sample from a folder of notebook 03."""
    parts = by_protocol(folder)
    return pd.DataFrame({name: part.groupby("question_id")["seconds"].sum() for name, part in parts.items()})


def trainings(students: Iterable[str], methods: Iterable[str]) -> dict[tuple[str, str], dict[str, str]]:
    """Return (student, method) -> its training stages: the planner's name -> the name of the record in data/runs."""
    found: dict[tuple[str, str], dict[str, str]] = {}
    for s in students:
        found |= {(s, m): {f"distill@{s}-{m}": f"05_distill-{s}-{m}"} for m in methods}
        found[s, "pad"] = {f"reward_model@{s}": f"06_reward_model-{s}", f"policy@{s}": f"07_policy-{s}-pad"}
    return found


def recorded_seconds(runs: Path, notebook: str, clock: str) -> float:
    """Seconds recorded by the last run of a notebook; NaN if its outputs came from DVC's cache instead."""
    note = runs / f"{notebook}.json"
    return float(json.loads(note.read_text()).get(clock, math.nan)) if note.is_file() else math.nan


def one_off_rows(
    used: dict[str, tuple[int, int]], debates: float, stages: dict, seeds: int, runs: Path, clock: str, fixed: dict
) -> list[Score]:
    """Rows of the costs paid once: the debates on training questions, and one seed of each training and of its parts.

    used: questions and tokens by stage (see the function `used`); debates: seconds of the debates on training
    questions; clock: the key of data/runs/*.json that holds seconds. A training that was not timed has no row in
    seconds.
    """
    n, tokens = used["debate@train"]
    paid = dict(fixed, setting="once", student="", method="debate")
    rows = [score(paid, "tokens", exact(tokens, n)), score(paid, "seconds", exact(debates, n))]
    for (student, method), parts in stages.items():
        spent = {
            stage: (used[stage][1] / seeds, recorded_seconds(runs, notebook, clock) / seeds)
            for stage, notebook in parts.items()
        }
        if len(parts) > 1:
            tokens_in_all, seconds_in_all = (sum(part[i] for part in spent.values()) for i in (0, 1))
            spent = {"training": (tokens_in_all, seconds_in_all), **spent}
        for name, amounts in spent.items():
            part = name.split("@")[0] if name in parts and len(parts) > 1 else ""
            own = dict(paid, part=part, student=student, method=method)
            rows += [score(own, u, exact(a, n)) for u, a in zip(UNITS, amounts, strict=True) if not math.isnan(a)]
    return rows


def answering(predictions: pd.DataFrame, teacher: pd.DataFrame, took: pd.DataFrame, fixed: dict) -> list[Score]:
    """Rows of the cost of an answer, by method and student, over the test questions in `predictions`.

    predictions: data/predictions, only setting "test" counts; teacher: `teacher_seconds`; took:
    reports/seconds.csv, the only source of students' seconds, which are means without an interval. A system that is not
    in it was not timed and has no row in seconds.
    """
    answers = predictions[predictions["setting"] == "test"]
    means = took[took["setting"] == "test"].set_index(["method", "student"])["seconds_per_question"]
    rows = []
    for (method, student), part in answers.groupby(["method", "student"], sort=False):
        own = dict(fixed, setting="answer", student=student, method=method)
        rows.append(score(own, "tokens", stats.mean(part.groupby("question_id")["tokens"].mean())))
        if method in teacher and not student:
            rows.append(score(own, "seconds", stats.mean(teacher[method])))
        elif (method, student) in means:
            rows.append(score(own, "seconds", exact(means[method, student], len(teacher))))
    return rows


def break_even(once: float, debate: float, student: float) -> float:
    """Number of answered questions after which a student has paid for itself. once: cost of its debates and training;
    debate, student: cost per question; all in one unit. Infinite if a student's answer costs at least as much as a
    debate."""
    return once / (debate - student) if debate > student else math.inf


def break_even_rows(rows: list[Score], predictions: pd.DataFrame, teacher: pd.DataFrame, fixed: dict) -> list[Score]:
    """Rows of the break-even: N = (debates + training) / (rival's answer - student's answer), by method, rival and
    unit.

    The costs paid once are known exactly, so the interval is that of the difference per question, paired if both costs
    are known by question. An end is infinite if the difference may be zero. N is infinite for a student that costs more
    than its rival.
    """
    spent = {(r.student, r.method, r.metric): r.value for r in rows if r.setting == "once" and not r.part}
    each = {(r.student, r.method, r.metric): r.value for r in rows if r.setting == "answer"}
    answers = predictions[predictions["setting"] == "test"]
    tokens = answers.groupby(["method", "student", "question_id"])["tokens"].mean()
    found = []
    for student, method, unit in (key for key in spent if key[0]):
        paid = spent[student, method, unit] + (0 if method in ANSWERS_ALONE else spent["", "debate", unit])
        for rival in RIVALS:
            if unit == "tokens":
                saved = stats.gain(tokens[rival, ""].sort_index(), tokens[method, student].sort_index())
            else:
                saved = stats.mean(teacher[rival] - each[student, method, unit])
            n, lo, hi = (break_even(paid, s, 0) for s in (saved.value, saved.hi, saved.lo))
            own = dict(fixed, setting="break-even", student=student, method=method)
            found.append(score(own, unit, Estimate(n, lo, hi, saved.n), baseline=rival))
    return found


def used(params: dict) -> dict[str, tuple[int, int]]:
    """Questions and tokens of each stage that has run, from the tables under data/.

    Tokens of debates, answers and the reward model's samples are counted. Tokens of a training are the mean length of
    its examples (for the policy, of the logged outputs) times the number of examples in all steps.
    """
    data, found = root() / "data", {}
    recipe, seeds = Recipe.of(params), len(params["seeds"])
    reward, policy = recipe.reward_model, recipe.policy
    for key in params["debates"]:
        files = sorted((data / "debates" / key).glob("[tv]*.parquet"))  # traces, and the vote if there is one
        traces = [t for file in files for t in read_table(file, Trace)]
        tokens = sum(t.prompt_tokens + t.completion_tokens for t in traces)
        found[f"debate@{key}"] = len({t.question_id for t in traces}), tokens
    trajectories = read_table(data / "extracted" / "trajectories.parquet", Trajectory)
    questions = {q.question_id: q for q in read_table(data / "questions" / "questions.parquet", Question)}
    debated = read_table(data / "extracted" / "train.parquet", CheckedTrace)
    trained_on = [questions[key] for key in dict.fromkeys(t.question_id for t in debated)]
    n = question_counts(params, "train")[params["train_task"]]
    for student in params["students"]:
        base = root() / folder_of(student)
        tokenizer = loading.load_tokenizer(base)
        sampled, sampling = None, 0
        if reward.own_samples:  # from the store: the reward model's stage has generated them
            vote = Vote(reward.own_samples, policy.temperature)
            model, store = f"{params['engine']}{base}", root() / params["store"]
            drawn = run_debates(vote, trained_on, model, store, 0, params["max_tokens"], Chat.of(params))[0]
            sampled, sampling = texts_of(drawn), sum(t.prompt_tokens + t.completion_tokens for t in drawn)
        debates = step_labels.debates(debated, questions, sampled)
        for method in params["methods"]:
            length = example_tokens(sft.examples(trajectories, method), tokenizer, params["system"])
            found[f"distill@{student}-{method}"] = n, round(length * recipe.sft.batch_size * recipe.sft.steps * seeds)
        times = reward.batch_size * (reward.stage_1_steps + reward.stage_2_steps) * seeds
        found[f"reward_model@{student}"] = n, round(debate_tokens(debates, tokenizer) * times) + sampling
        prompts = [len(prompt_ids(tokenizer, solve_prompt(d.question, params["system"]), 10**9)) for d in debates]
        length = pd.read_csv(data / "students" / student / "pad" / "curve.csv")["length"].mean()
        times = policy.batch_size * policy.num_generations * policy.steps * seeds
        found[f"policy@{student}"] = n, round((sum(prompts) / len(prompts) + length) * times)
    answers = read_table(data / "predictions" / "predictions.parquet", Prediction)
    passes = [p for p in answers if p.setting == "test" and (p.student or p.method == "greedy")]
    found["evaluate"] = len({p.question_id for p in passes}), sum(p.tokens for p in passes)
    return found
