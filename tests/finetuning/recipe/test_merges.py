"""`lora.merge`: adapters of other recipes in place of a training, and what does not go with that."""

import pytest
import yaml

from finetuning.recipe.loading import load_file
from finetuning.recipe.smoke import smoke
from tests.finetuning.recipe.short_recipe import mistakes_of, with_sections, write

MERGE = "lora: {merge: {adapters: {maths: 0.7, code: 0.3}}}"


def lora(**merge):
    return yaml.safe_dump({"lora": {"merge": {"adapters": {"maths": 0.7, "code": 0.3}, **merge}}})


@pytest.mark.parametrize(
    ("sections", "told"),
    [
        ("lora: {merge: {adapters: {maths: 1.0}}}", "lora.merge.adapters: "),
        (
            "lora: {merge: {adapters: {maths: 0.0, code: 1.0}}}",
            "lora.merge.adapters: maths with weight 0 would do nothing",
        ),
        (lora(combination_type="ties"), "lora.merge.density: missing, and combination_type is ties; write a share"),
        (lora(density=0.5), "lora.merge.density: 0.5 with combination_type: cat, which keeps all; leave it out"),
        (
            lora(combination_type="ties", density=0.5, seed=1),
            "lora.merge.seed: 1 with combination_type: ties; it is for",
        ),
        (
            lora(majority_sign_method="frequency"),
            "lora.merge.majority_sign_method: frequency with combination_type: cat",
        ),
        ("lora: {r: 8, merge: {adapters: {maths: 0.7, code: 0.3}}}", "lora.r: beside lora.merge, where the adapters"),
        (f"{MERGE}\ntraining: {{learning_rate: 0.1}}", "training.learning_rate: with lora.merge, which trains nothing"),
        (
            f"{MERGE}\nvariants: {{grid: {{training.seed: [1, 2]}}}}\n"
            "dataset: {sources: [{hub: some/data}], dev: {fraction: 0.1}}",
            "variants: with lora.merge, which trains nothing",
        ),
    ],
)
def test_what_does_not_go_with_a_merge_is_told(tmp_path, sections, told):
    found = mistakes_of(write(tmp_path, with_sections(sections)))
    assert len(found) == 1 and told in found[0], found


def test_a_smoke_run_merges_too(tmp_path):
    recipe = load_file(write(tmp_path, with_sections(f"{MERGE}\ntraining: {{bf16: false}}")))
    assert recipe.lora.merge and smoke(recipe).lora == recipe.lora
    assert smoke(recipe).training == recipe.training
