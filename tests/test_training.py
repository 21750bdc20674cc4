"""Students of the real architectures, with every way to train, to save and to divide a batch."""

import importlib.util
import json
import os
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from checkpoints import FAMILIES, build
from peft import AutoPeftModelForCausalLM, PeftModel
from peft.tuners.lora import LoraLayer
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from agentark import StudyError
from agentark.distill import launch, policy, scorer, sft
from agentark.distill.reward_model import DebateSteps, train
from agentark.distill.settings import SFT, Policy, RewardModel
from agentark.distill.students import commit
from agentark.distill.training import batch_arguments, trainable
from agentark.models import loading
from agentark.models.chat import ends_of_turn, prompt_ids
from agentark.models.checkpoints import digest
from agentark.tasks import TASKS

pytestmark = pytest.mark.long
QUESTIONS = TASKS["equation"].questions(24, "train", 0)
PAIRS = [(q.text, q.solution) for q in QUESTIONS]
WRONG = "answer : 0"
DEBATES = [DebateSteps(q.text, [q.solution, WRONG], [[True] * len(q.solution.split("\n")), [False]]) for q in QUESTIONS]


@pytest.fixture(scope="module")
def project(tmp_path_factory) -> Path:
    """The working directory of the tests: laid out like the project, with a tiny checkpoint of each family."""
    folder, before = tmp_path_factory.mktemp("project"), Path.cwd()
    (folder / "params.yaml").write_text("{}\n")
    for family in FAMILIES:
        build(family, folder / "data/models" / family)
    os.chdir(folder)
    yield folder
    os.chdir(before)


STEPS = {"steps": 4, "batch_size": 8, "learning_rate": 0.02}


def train_rsft(base: Path, out: Path, pairs: list[tuple[str, str]] = PAIRS, **changes) -> list[dict]:
    """A few steps of R-SFT at a learning rate that changes a random model clearly."""
    return sft.train(base, pairs, out, 0, SFT.read(STEPS | changes))


def policy_arguments(base: Path, reward_model: Path, out: Path, **changes) -> dict:
    """Arguments for two steps of GRPO."""
    defaults = {
        "steps": 2, "batch_size": 2, "num_generations": 4, "max_tokens": 6, "learning_rate": 0.001, "temperature": 1.0,
        "beta": 0.01, "aggregate": "mean", "outcome_weight": 1.0,
    }  # fmt: skip
    settings = Policy.read(defaults | changes)
    return dict(base=base, reward_model=reward_model, questions=QUESTIONS, out=out, seed=0, settings=settings)


def reward_model_arguments(base: Path, out: Path, **changes) -> dict:
    """Arguments for a few steps of both stages of a reward model."""
    defaults = {"loss": "paper", "stage_1_steps": 2, "stage_2_steps": 3, "batch_size": 4, "learning_rate": 0.001}
    settings = RewardModel.read(defaults | changes)
    return dict(base=base, debates=DEBATES, out=out, seed=0, settings=settings)


@torch.inference_mode()
def greedy_tokens(model, base: Path) -> list[list[int]]:
    """Tokens of prompts and replies with greedy decoding."""
    tokenizer = loading.load_tokenizer(base)
    ends = ends_of_turn(loading.load(base)[0].generation_config, tokenizer)
    tokens = []
    for question, _ in PAIRS[:3]:
        ids = torch.tensor([prompt_ids(tokenizer, [{"role": "user", "content": question}], 4000)])
        options = {
            "do_sample": False,
            "max_new_tokens": 12,
            "eos_token_id": ends,
            "pad_token_id": tokenizer.pad_token_id,
        }
        tokens.append(model.eval().generate(input_ids=ids, attention_mask=torch.ones_like(ids), **options)[0].tolist())
    return tokens


@pytest.mark.parametrize("family", FAMILIES)
def test_a_checkpoint_of_every_family_loads(project, family):
    model, tokenizer = loading.load(project / "data/models" / family)
    assert model.dtype == torch.float32 and tokenizer.pad_token is not None
    assert model.config.get_text_config().max_position_embeddings >= 2048 and model.num_parameters() < 400_000
    assert len(ends_of_turn(model.generation_config, tokenizer)) == 2
    assert hasattr(model.model, "visual") == (family == "qwen2.5-vl")


@pytest.mark.parametrize("family", FAMILIES)
def test_merged_student_and_adapter_generate_the_same_tokens(project, family):
    base, out = project / "data/models" / family, project / "students" / family
    train_rsft(base, out, lora_rank=4)
    merged = greedy_tokens(loading.load(out)[0], base)
    plain = loading.load(base)[0]
    assert merged != greedy_tokens(plain, base)
    assert greedy_tokens(PeftModel.from_pretrained(plain, out / "adapter"), base) == merged
    adapted = loading.load(base)[0]
    adapted.load_adapter(str(out / "adapter"))
    assert greedy_tokens(adapted, base) == merged
    if family != "qwen2.5-vl":  # the auto classes only support causal models
        assert greedy_tokens(AutoPeftModelForCausalLM.from_pretrained(out / "adapter"), base) == merged
        assert greedy_tokens(AutoModelForCausalLM.from_pretrained(out / "adapter"), base) == merged


@pytest.mark.parametrize("family", FAMILIES)
def test_full_training_changes_all_weights_of_the_language_model_and_no_others(project, family):
    base, out = project / "data/models" / family, project / "students" / f"{family}-full"
    train_rsft(base, out, steps=1)
    before, after = (load_file(folder / "model.safetensors") for folder in (base, out))
    assert before.keys() == after.keys()
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert changed == {name for name in before if "visual" not in name}
    assert loading.load(out)[0].config.architectures == loading.load(base)[0].config.architectures


@pytest.mark.parametrize("family", FAMILIES)
def test_adapters_are_on_all_linear_layers_of_the_language_model(project, family):
    model, _ = trainable(project / "data/models" / family, 0, SFT.read(STEPS | {"lora_rank": 4}))
    plain, _ = loading.load(project / "data/models" / family)
    decoder = plain.get_decoder()
    linear = {n for n, m in plain.named_modules() if isinstance(m, torch.nn.Linear) and m in set(decoder.modules())}
    adapted = {
        n.partition(".lora_A")[0].removeprefix("base_model.model.")
        for n, _ in model.named_parameters()
        if "lora_A" in n
    }
    assert adapted == linear and len(linear) == 14
    trained = {n for n, p in model.named_parameters() if p.requires_grad}
    assert trained == {n for n, _ in model.named_parameters() if "lora_" in n}
    scaling = {s for m in model.modules() if isinstance(m, LoraLayer) for s in m.scaling.values()}
    assert scaling == {2.0}


def test_initial_adapters_depend_on_the_seed(project):
    def initial(seed: int) -> torch.Tensor:
        model, _ = trainable(project / "data/models/qwen3", seed, SFT.read(STEPS | {"lora_rank": 4}))
        return next(p for n, p in model.named_parameters() if "lora_A" in n)

    assert torch.equal(initial(1), initial(1)) and not torch.equal(initial(1), initial(2))


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("lora_rank", [0, 4])
def test_a_reward_model_is_trained_from_every_family(project, family, lora_rank):
    base, out = project / "data/models" / family, project / "judges" / f"{family}-{lora_rank}"
    curve = train(
        **reward_model_arguments(base, out, lora_rank=lora_rank, loss="code" if family == "llama" else "paper")
    )
    assert {row["stage"] for row in curve} == {1, 2}
    ((first, *_), _) = scores = scorer.StepScorer(out)([PAIRS[0][0]] * 2, [PAIRS[0][1], ""])
    assert len(scores[0]) == len(PAIRS[0][1].split("\n")) and scores[1] == [] and 0 < first < 1
    stages = [load_file(folder / "model.safetensors") for folder in (out / "stage-1", out)]
    fresh = loading.load_scorer(base).state_dict()
    changed = [{n for n in fresh if not torch.equal(fresh[n], s.get(n, fresh[n]))} for s in stages]
    assert changed[0] and all("layers.1." in n or "score." in n for n in changed[0])
    assert any("layers.0." in n for n in changed[1])
    assert not torch.equal(stages[0]["score.weight"], stages[1]["score.weight"])
    assert not any("projection" in n for n in stages[1])


@pytest.mark.parametrize("family", ["gemma3", "qwen2.5-vl"])
def test_grpo_runs_with_several_ends_of_turn_and_with_vision_parts(project, family):
    base, reward_model, out = (project / place / family for place in ("data/models", "judges", "students/pad"))
    train(**reward_model_arguments(base, reward_model))
    (first, *_) = policy.train(**policy_arguments(base, reward_model, out, lora_rank=4))
    assert {"step", "reward", "kl", "length", "accuracy"} <= set(first) and 0 <= first["reward"] <= 2
    assert greedy_tokens(PeftModel.from_pretrained(loading.load(base)[0], out / "adapter"), base) == greedy_tokens(
        loading.load(out)[0], base
    )


def test_students_of_two_processes_match_one_process(project):
    base = project / "data/models/qwen3"
    one, parts = (train_rsft(base, project / "one" / str(n), steps=9, per_device_batch_size=n) for n in (0, 2))
    call = {"base": base, "pairs": PAIRS, "seed": 0, "settings": SFT.read(STEPS | {"steps": 9})}
    (two,) = launch.run_all(sft.train, [call | {"out": project / "two/0"}], 2)
    assert len({row["loss"] for row in one}) == 9
    for curve in parts, two:
        assert [row["loss"] for row in curve] == pytest.approx([row["loss"] for row in one], abs=1e-5)
    weights = [load_file(project / name / "0/model.safetensors") for name in ("one", "two")]
    for name in weights[0]:
        torch.testing.assert_close(weights[1][name], weights[0][name], atol=5e-3, rtol=0)


def test_reward_models_and_grpo_train_on_two_processes(project):
    base, reward_model = project / "data/models/llama", project / "judges/two"
    (curve,) = launch.run_all(train, [reward_model_arguments(base, reward_model)], 2)
    single = train(**reward_model_arguments(base, project / "judges/one"))
    # the processes differ in dropout and negatives
    assert curve[0]["loss"] == pytest.approx(single[0]["loss"], rel=0.2)
    (curve,) = launch.run_all(policy.train, [policy_arguments(base, reward_model, project / "two/pad", lora_rank=4)], 2)
    assert [row["step"] for row in curve] == [1, 2]
    assert greedy_tokens(loading.load(project / "two/pad")[0], base)


def test_a_failure_of_a_launched_training_is_reported_in_one_line(project):
    call = {"base": Path("nowhere"), "pairs": PAIRS, "seed": 0, "settings": SFT.read(STEPS | {"batch_size": 7})}
    with pytest.raises(StudyError, match=r"^batch_size: 7 examples do not divide among 2 processes; [^\n]*$"):
        launch.run_all(sft.train, [call | {"out": project / "never"}], 2)
    with pytest.raises(StudyError, match=r"^train: TypeError: [^\n]*osmosis[^\n]*$"):
        launch.run_in_processes(
            sft.train, call | {"out": project / "never", "osmosis": 1}, launch.side_by_side(1), "", False
        )


@pytest.mark.parametrize("processes", [1, 2, 4])
@pytest.mark.parametrize("per_device", [0, 1, 3])
def test_the_parts_of_a_divided_batch_add_up_to_the_batch(processes, per_device, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", str(processes))
    shares = batch_arguments(24, per_device)
    assert shares["per_device_train_batch_size"] * shares["gradient_accumulation_steps"] * processes == 24
    assert shares["per_device_train_batch_size"] == (per_device or 24 // processes)
    with pytest.raises(StudyError, match="batch_size: 24"):
        batch_arguments(24, 5)


@pytest.mark.skipif(torch.cuda.is_available(), reason="what a machine without a GPU refuses")
def test_unavailable_settings_are_refused_and_the_trainer_is_printed(project, capsys):
    base, out = project / "data/models/qwen3", project / "never"
    assert launch.route(SFT.read(STEPS)) == (False, "trainer: transformers, all weights")
    for changes, words in (
        ({"trainer": "unsloth", "lora_rank": 4}, "trainer unsloth: no GPU here"),
        ({"trainer": "unsloth"}, "trainer unsloth: Unsloth is for LoRA"),
        ({"trainer": "osmosis"}, "sft.trainer='osmosis'"),
        ({"four_bit": True, "lora_rank": 4}, "four_bit: needs a GPU"),
        ({"four_bit": True}, "four_bit: .* set lora_rank"),
    ):
        with pytest.raises(StudyError, match=words):
            train_rsft(base, out, **changes)
    with pytest.raises(
        StudyError, match="policy.generator=vllm: .*not installed" if not importlib.util.find_spec("vllm") else "GPU"
    ):
        policy.train(**policy_arguments(base, base, out, generator="vllm"))
    with pytest.raises(StudyError, match=r"policy\.generator=paged needs a GPU"):
        policy.train(**policy_arguments(base, base, out, generator="paged"))
    with pytest.raises(StudyError, match=r"policy\.generator='osmosis'"):
        policy.train(**policy_arguments(base, base, out, generator="osmosis"))
    assert not out.exists()
    launch.run_all(sft.train, [dict(base=base, pairs=PAIRS, out=out, seed=0, settings=SFT.read(STEPS | {"steps": 1}))])
    assert capsys.readouterr().out.startswith("trainer: transformers, all weights\n")


CARD = sft.GPU(80e9, "flash_attention_2", frozenset({"qwen3", "gemma3_text", "qwen2_5_vl"}))


@pytest.mark.parametrize(
    ("family", "card", "tokens", "expected"),
    [
        ("qwen3", CARD, 6400, (True, True, False)),
        ("llama", CARD, 6400, (True, False, False)),  # CARD has no Liger kernels for llama
        ("qwen3", sft.GPU(80e9), 6400, (False, False, False)),
        ("qwen3", replace(CARD, memory=1e6), 6400, (True, True, True)),  # too little memory for activations
        ("qwen3", CARD, 6.4e7, (True, True, True)),
        ("qwen2.5-vl", CARD, 6400, (False, False, False)),
    ],
)
def test_arguments_of_training_depend_on_the_kernels_and_memory_of_the_gpu(project, family, card, tokens, expected):
    model, _ = loading.load(project / "data/models" / family)
    names = ("padding_free", "use_liger_kernel", "gradient_checkpointing")
    assert sft.gpu_arguments(model, card, tokens) == dict(zip(names, expected, strict=True))


def test_no_gpu_is_described_on_a_machine_without_one(project):
    assert torch.cuda.is_available() or sft.gpu() is None


@pytest.mark.parametrize("family", ["qwen3", "llama", "gemma3"])
@pytest.mark.parametrize("lora_rank", [0, 4])
def test_the_estimate_of_activation_memory_is_an_upper_bound(project, monkeypatch, family, lora_rank):
    """Compared with what autograd saves for the backward pass, in bf16 as on a GPU."""
    monkeypatch.setattr(loading, "precision", lambda: torch.bfloat16)
    model, _ = trainable(project / "data/models" / family, 0, SFT.read(STEPS | {"lora_rank": lora_rank}))
    decoder = (model.get_base_model() if lora_rank else model).get_decoder()

    def saved_bytes(tokens: int) -> int:
        storages = {}

        def record(tensor):
            storages[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(record, lambda tensor: tensor), torch.autocast("cpu"):
            state = decoder(input_ids=torch.arange(tokens)[None], use_cache=False).last_hidden_state
        assert state.requires_grad
        return sum(storages.values())

    measured = saved_bytes(512) - saved_bytes(256)  # the difference excludes the weights
    estimate = sft.training_bytes(model, 512) - sft.training_bytes(model, 256)
    assert measured < estimate < 2.5 * measured


@pytest.mark.parametrize("lora_rank", [0, 4])
def test_batches_without_padding_give_the_same_losses(project, monkeypatch, lora_rank):
    base = project / "data/models/qwen3"
    padded = train_rsft(base, project / "padded", lora_rank=lora_rank, per_device_batch_size=4)
    monkeypatch.setattr(sft, "gpu", lambda: sft.GPU(80e9, "sdpa"))
    flat = train_rsft(base, project / "flat", lora_rank=lora_rank, per_device_batch_size=4)
    for key in ("loss", "mean_token_accuracy"):
        assert [row[key] for row in flat] == pytest.approx([row[key] for row in padded], abs=1e-4), key


@pytest.mark.parametrize("lora_rank", [0, 4])
def test_mixed_precision_gives_the_same_losses_up_to_rounding(project, lora_rank):
    base = project / "data/models/qwen3"
    full = train_rsft(base, project / "fp32", lora_rank=lora_rank)
    mixed = train_rsft(base, project / "bf16", lora_rank=lora_rank, bf16=True)
    losses = ([row["loss"] for row in curve] for curve in (mixed, full))
    assert next(losses) == pytest.approx(next(losses), rel=0.02)
    assert mixed != full  # 16-bit arithmetic was used
    assert load_file(project / "bf16/model.safetensors").keys() == load_file(project / "fp32/model.safetensors").keys()
    assert all(w.dtype == torch.float32 for w in load_file(project / "bf16/model.safetensors").values())


def test_students_have_reproducible_provenance_and_model_cards(project):
    base, out = project / "data/models/llama", project / "students/told"
    (base / "README.md").write_text("---\nlicense: llama3\n---\n\n# A base\n")
    for place in (out, project / "students/again"):
        train_rsft(base, place, lora_rank=4, per_device_batch_size=4)
    files = sorted(p.relative_to(out) for p in out.rglob("*") if p.is_file())
    for file in files:
        assert (out / file).read_bytes() == (project / "students/again" / file).read_bytes(), file
        if file.suffix != ".safetensors":
            assert str(project) not in (out / file).read_text(), file
    provenance = json.loads((out / "provenance.json").read_text())
    assert provenance["method"] == "rsft" and provenance["seed"] == 0 and provenance["parameters"]["lora_rank"] == 4
    assert provenance["base"] == {"name": "data/models/llama", "sha256": digest(base)}
    assert provenance["examples"]["number"] == len(PAIRS) and provenance["versions"]["torch"] == torch.__version__
    assert (
        json.loads((out / "adapter/adapter_config.json").read_text())["base_model_name_or_path"] == "data/models/llama"
    )
    for card, library in ((out, "transformers"), (out / "adapter", "peft")):
        head = (card / "README.md").read_text()
        assert "base_model: data/models/llama\n" in head and f"library_name: {library}\n" in head
        assert "license: llama3\n" in head
    train_rsft(base, project / "students/other", lora_rank=4, pairs=PAIRS[1:])
    other = json.loads((project / "students/other/provenance.json").read_text())
    assert other["examples"]["sha256"] != provenance["examples"]["sha256"]


def test_the_recorded_commit_is_the_last_one_that_changed_code(tmp_path, monkeypatch):
    def git(*arguments: str) -> str:
        identity = ["-c", "user.name=n", "-c", "user.email=e"]
        done = subprocess.run(["git", *identity, *arguments], check=True, capture_output=True, text=True)
        return done.stdout.strip()

    monkeypatch.chdir(tmp_path)
    (tmp_path / "params.yaml").write_text("{}\n")
    git("init")
    assert commit() is None
    git("add", "."), git("commit", "-m", "code")
    code = git("rev-parse", "HEAD")
    assert commit() == {"commit": code, "uncommitted_changes": False}
    (tmp_path / "results.csv").write_text("1\n")
    git("add", "."), git("commit", "-m", "results")
    assert commit() == {"commit": code, "uncommitted_changes": False}
    (tmp_path / "params.yaml").write_text("{a: 1}\n")
    assert commit() == {"commit": code, "uncommitted_changes": True}


def test_provenance_does_not_change_the_digest_of_a_model(project):
    base = project / "data/models/gemma3"
    before = digest(base)
    (base / "provenance.json").write_text("{}")
    assert digest(base) == before
