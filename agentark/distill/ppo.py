"""PPO (arXiv 1707.06347) instead of GRPO (the paper's Table 5): clipped loss and GAE by torchrl, with its own loop.

Rewards, outputs per step and the KL penalty are those of `policy`. The differences: an output's reward comes at its
last token, a critic predicts the return at each token, and the advantages are computed per token from these
predictions.
"""

import itertools
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch
from tensordict import TensorDict
from tensordict.nn import ProbabilisticTensorDictModule, ProbabilisticTensorDictSequential, TensorDictModule
from torch.distributions import Categorical
from torchrl.objectives import ClipPPOLoss
from torchrl.objectives.value import GAE
from transformers import PreTrainedTokenizerFast, get_linear_schedule_with_warmup

from agentark import deadline
from agentark.distill import policy
from agentark.distill.rewards import rewards
from agentark.distill.settings import Policy
from agentark.distill.students import save
from agentark.distill.training import trainable
from agentark.models import loading
from agentark.models.chat import ends_of_turn, prompt_ids, solve_prompt
from agentark.parallel import tick
from agentark.schemas import Question

CLIP = 0.2  # epsilon of the PPO paper, also TRL's for GRPO
# GAE's lambda, with gamma 1 (Open-Reasoner-Zero, arXiv 2503.24290). At the PPO paper's 0.95 an untrained critic favours
# late tokens over early ones, and outputs get shorter (arXiv 2503.01491); here by half in 40 steps.
LAMBDA = 1.0
NORM = 1.0  # maximal norm of the gradients, as in all trainings here


def question_batches(questions: Sequence[Question], prompts: int) -> Iterator[list[Question]]:
    """Yield endless batches of `prompts` questions, each pass over the questions in a new random order."""
    passes = (torch.randperm(len(questions)).tolist() for _ in itertools.count())
    order = itertools.chain.from_iterable(passes)
    while True:
        yield [questions[i] for i in itertools.islice(order, prompts)]


@torch.no_grad()
def sample(
    model: loading.Model, tokenizer: PreTrainedTokenizerFast, prompts: list[list[dict]], most: int, temperature: float
) -> TensorDict:
    """Sample one output of at most `most` tokens for each prompt.

    Returns `ids` and `mask`, (outputs, prompt + output tokens) with left-padded prompts, and `written`, (outputs,
    output tokens), true up to the end of the turn.
    """
    room = model.config.get_text_config().max_position_embeddings - most
    chats = [prompt_ids(tokenizer, p, room, "off") for p in prompts]  # as in policy.outputs_of
    inputs = tokenizer.pad({"input_ids": chats}, return_tensors="pt", padding_side="left").to(model.device)
    ends = ends_of_turn(model.generation_config, tokenizer)
    ids = model.generate(
        **inputs, max_new_tokens=most, do_sample=True, temperature=temperature, top_k=0, top_p=1.0,
        pad_token_id=tokenizer.pad_token_id, eos_token_id=ends,
    )  # fmt: skip
    ended = torch.isin(ids[:, inputs["input_ids"].shape[1] :], torch.tensor(ends, device=ids.device))
    written = ended.cumsum(1) - ended.long() == 0
    mask = torch.cat([inputs["attention_mask"].bool(), written], dim=1)
    return TensorDict(ids=ids, mask=mask, written=written, batch_size=len(ids))


def head_outputs(model: loading.Model, outputs: TensorDict) -> torch.Tensor:
    """The head's output at the position before each output token: (outputs, output tokens, width of the head)."""
    mask = outputs["mask"].long()
    position = (mask.cumsum(-1) - 1).clamp(min=0)
    head = model(input_ids=outputs["ids"], attention_mask=mask, position_ids=position).logits
    return head[:, -outputs["written"].shape[1] - 1 : -1].float()


def divergence(log_probability: torch.Tensor, reference: torch.Tensor) -> torch.Tensor:
    """GRPO's non-negative estimate of the KL divergence to the reference per token (arXiv 2402.03300, eq. 4)."""
    log_ratio = reference - log_probability
    return log_ratio.exp() - log_ratio - 1


def generalised_advantages(
    values: torch.Tensor, rewards: torch.Tensor, written: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Advantages and value targets by GAE for the generated tokens: (tokens, 1) each.

    values, written: (outputs, output tokens); rewards: (outputs,), each given at an output's last token, which ends the
    episode.
    """
    following = torch.nn.functional.pad(values, (0, 1))[:, 1:]
    last = written & ~torch.nn.functional.pad(written, (0, 1))[:, 1:]
    steps = TensorDict(
        {
            "state_value": values[..., None],
            "next": {
                "state_value": following[..., None],
                "reward": (rewards[:, None] * last)[..., None],
                "done": last[..., None],
                "terminated": last[..., None],
            },
        },
        batch_size=written.shape,
    )
    steps = GAE(gamma=1.0, lmbda=LAMBDA, value_network=None)(steps)
    return steps["advantage"][written], steps["value_target"][written]


def clipped_loss() -> ClipPPOLoss:
    """torchrl's loss of actor and critic for tokens with precomputed `logits` and `value`."""
    token = ProbabilisticTensorDictModule(
        in_keys=["logits"], out_keys=["action"], distribution_class=Categorical, return_log_prob=True
    )
    value = TensorDictModule(torch.nn.Identity(), in_keys=["value"], out_keys=["state_value"])
    return ClipPPOLoss(
        ProbabilisticTensorDictSequential(token), value, clip_epsilon=CLIP, entropy_bonus=False, loss_critic_type="l2",
        normalize_advantage=True,
    )  # fmt: skip


def train(
    base: Path, reward_model: Path | None, questions: Sequence[Question], out: Path, seed: int, settings: Policy
) -> list[dict]:
    """Train a student from `base` by PPO and save it to `out`. Each step has settings.batch_size questions with
    `num_generations` outputs each.

    The critic is the base with a scalar head; all of its weights are trained. `epochs`: updates on each step's outputs
    (1, as in GRPO). The rest is as in policy.train. Returns the learning curve: step, reward, kl, length (tokens per
    output), measured before the step's updates.
    """
    functions, weights = rewards(reward_model, questions, settings.aggregate, settings.outcome_weight)
    torch.manual_seed(seed)
    models = Models(base, seed, settings)
    history = []
    for step, batch in enumerate(
        itertools.islice(question_batches(questions, settings.batch_size), settings.steps), start=1
    ):
        deadline.check()
        repeated = [q for q in batch for _ in range(settings.num_generations)]
        chats = [solve_prompt(q.text, settings.system) for q in repeated]
        outputs = sample(models.actor, models.tokenizer, chats, settings.max_tokens, settings.temperature)
        texts = [[{"content": text}] for text in models.texts(outputs)]
        keys = [q.question_id for q in repeated]
        earned = [f(prompts=chats, completions=texts, question_id=keys) for f in functions]
        device = outputs["ids"].device
        reward = torch.tensor(weights, device=device) @ torch.tensor(earned, device=device)
        tokens, kl = models.assessed(outputs, reward)
        length = outputs["written"].sum(1).float().mean()
        history.append({"step": step, "reward": float(reward.mean()), "kl": float(kl), "length": float(length)})
        for _ in range(settings.epochs):
            models.update(outputs, tokens)
        tick()
    save(
        models.actor,
        models.tokenizer,
        out,
        policy.origin(base, reward_model, questions, seed, settings.but(algorithm="ppo")),
    )
    return history


class Models:
    """Actor, critic and reference of one training, and the optimiser of actor and critic."""

    def __init__(self, base: Path, seed: int, settings: Policy):
        self.settings = settings
        self.actor, self.tokenizer = trainable(base, seed, settings.but(trainer="peft"))
        self.reference = loading.load(base, torch.float32)[0]
        self.critic = loading.load_scorer(base, torch.float32)
        for model in (self.actor, self.reference, self.critic):
            model.to(loading.device()).eval()  # no dropout, so that probability ratios start at 1
        self.trained = [[p for p in m.parameters() if p.requires_grad] for m in (self.actor, self.critic)]
        self.optimiser = torch.optim.AdamW(self.trained[0] + self.trained[1], settings.learning_rate, weight_decay=0.0)
        self.schedule = get_linear_schedule_with_warmup(self.optimiser, 0, settings.steps * settings.epochs)
        self.objective = clipped_loss()

    def texts(self, outputs: TensorDict) -> list[str]:
        """The outputs as text, without prompts and special tokens."""
        output_ids = outputs["ids"][:, -outputs["written"].shape[1] :]
        rows = [ids[written] for ids, written in zip(output_ids, outputs["written"], strict=True)]
        return self.tokenizer.batch_decode(rows, skip_special_tokens=True)

    @torch.no_grad()
    def assessed(self, outputs: TensorDict, reward: torch.Tensor) -> tuple[TensorDict, torch.Tensor]:
        """The output tokens with log-probabilities, advantages and value targets before the step's updates, and the
        mean KL divergence to the reference. reward: (outputs,)."""
        written, temperature = outputs["written"], self.settings.temperature
        action = outputs["ids"][:, -written.shape[1] :][written]
        advantage, target = generalised_advantages(head_outputs(self.critic, outputs)[..., 0], reward, written)
        before = Categorical(logits=head_outputs(self.actor, outputs)[written] / temperature).log_prob(action)
        at_base = Categorical(logits=head_outputs(self.reference, outputs)[written] / temperature).log_prob(action)
        tokens = TensorDict(
            action=action, action_log_prob=before, at_base=at_base, advantage=advantage, value_target=target,
            batch_size=len(before),
        )  # fmt: skip
        return tokens, divergence(before, at_base).mean()

    def update(self, outputs: TensorDict, tokens: TensorDict) -> None:
        """One optimiser step of actor and critic on outputs with their assessed tokens."""
        written = outputs["written"]
        logits = head_outputs(self.actor, outputs)[written] / self.settings.temperature
        losses = self.objective(
            tokens.exclude("at_base").update({"logits": logits, "value": head_outputs(self.critic, outputs)[written]})
        )
        now = Categorical(logits=logits).log_prob(tokens["action"])
        kl = divergence(now, tokens["at_base"]).mean()
        loss = losses["loss_objective"] + losses["loss_critic"] + self.settings.beta * kl
        self.optimiser.zero_grad()
        loss.backward()
        for part in self.trained:
            torch.nn.utils.clip_grad_norm_(part, NORM)
        self.optimiser.step()
        self.schedule.step()
