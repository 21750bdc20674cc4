"""Training of a base model through its notebook."""

import json

from small_study import copy_of_project, stage


def test_base_model_training_writes_a_card_and_a_readme(tmp_path):
    folder = copy_of_project(tmp_path)
    stage(
        folder, "02_base_models", "name=tiny", "hidden=32", "layers=1", "drill_steps=6", "steps=6",
        "examined=2", "out=data/models/tiny",
    )  # fmt: skip
    card = json.loads((folder / "data" / "models" / "tiny" / "card.json").read_text())
    assert card["tokens_read"] > 0 and set(card["accuracy"]["greedy"]) >= {"word", "digest"}
    assert "| word |" in (folder / "data" / "models" / "tiny" / "README.md").read_text()
