"""A folder with tasks of lm-eval's: one of choices, one of answers, and a group of both that has no one metric.

>>> EvaluationSpec(benchmarks=("animals", "sums"), benchmark_folder=str(write_tasks(tmp_path)))
"""

import json
from pathlib import Path

CHOICES = """
task: animals
dataset_path: json
dataset_kwargs:
  data_files: {test: animals.jsonl}
test_split: test
output_type: multiple_choice
doc_to_text: "Question: {{question}}\\nAnswer:"
doc_to_target: "{{label}}"
doc_to_choice: "{{choices}}"
metric_list:
  - {metric: acc, aggregation: mean, higher_is_better: true}
  - {metric: acc_norm, aggregation: mean, higher_is_better: true}
"""
ANSWERS = """
task: sums
dataset_path: json
dataset_kwargs:
  data_files: {test: sums.jsonl}
test_split: test
output_type: generate_until
doc_to_text: "{{question}}"
doc_to_target: "{{answer}}"
generation_kwargs: {until: ["\\n"], max_gen_toks: 4, do_sample: false}
metric_list:
  - {metric: exact_match, aggregation: mean, higher_is_better: true}
"""
TEXTS = """
task: texts
dataset_path: json
dataset_kwargs:
  data_files: {test: sums.jsonl}
test_split: test
output_type: loglikelihood_rolling
doc_to_text: ""
doc_to_target: "{{question}} {{answer}}"
metric_list:
  - {metric: word_perplexity, aggregation: weighted_perplexity, higher_is_better: false}
"""
BOTH = "group: both\ntask: [animals, sums]\n"


def write_tasks(folder: Path, rows: int = 12) -> Path:
    """`folder`, which then holds the tasks and their rows."""
    folder.mkdir(exist_ok=True)
    for name, text in {"animals": CHOICES, "sums": ANSWERS, "texts": TEXTS, "both": BOTH}.items():
        (folder / f"{name}.yaml").write_text(text)
    animals = [{"question": f"What is {i}?", "choices": ["a cat", "a big dog"], "label": i % 2} for i in range(rows)]
    sums = [{"question": f"What is {i} + {i}?", "answer": str(2 * i)} for i in range(rows)]
    for name, found in {"animals": animals, "sums": sums}.items():
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in found))
    return folder
