"""The rules of an exam of benchmarks, and what a tiny model is asked by them."""

from transformers import AutoModelForCausalLM, AutoTokenizer

from finetuning.evaluation.benchmark_scores import Examinee, ask
from finetuning.evaluation.benchmark_tasks import load_benchmarks
from finetuning.progress import Progress
from finetuning.recipe.evaluation import EvaluationSpec

SILENT = Progress(lambda line: None, "")
WHERE = "recipes/tiny.yaml"


def spec(tasks, *names, **settings):
    names = names or ("animals", "sums")
    return EvaluationSpec(benchmarks=names, benchmark_folder=str(tasks), **{"batch_size": 4, **settings})


def examinee(base, kind=Examinee):
    tokenizer = AutoTokenizer.from_pretrained(base)
    return kind(AutoModelForCausalLM.from_pretrained(base).eval(), tokenizer, 4, SILENT, "base")


def asked(base, spec):
    return ask(examinee(base), load_benchmarks(spec, WHERE), spec)
