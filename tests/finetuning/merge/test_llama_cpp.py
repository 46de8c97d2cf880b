"""GGUF files in llama.cpp itself: it loads them, splits prompts as training did, answers as the model, and stops."""

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig

from finetuning.base_model.loading import load_model
from finetuning.chat.rendering import Renderer
from finetuning.chat.segments import Conversation
from finetuning.chat.template import load_template, stop_token
from finetuning.chat.tokenization import token_ids
from finetuning.merge.gguf_file import TEXTS, write_gguf
from finetuning.merge.merged_model import Parts, merge
from finetuning.recipe.merge import MergeSpec
from tests.conftest import GGUF, smollm2_folder, train_tiny_tokenizer
from tests.finetuning.merge.test_gguf_file import METASPACE, MODELS, PREPEND, SPACES, saved, sentencepiece
from tests.finetuning.merge.test_merged_model import QUIET, trained
from tests.llama_cpp import LlamaCpp
from tests.native_templates import ZEPHYR

SYSTEM = {"role": "system", "content": "Be brief."}
ASKED = {"role": "user", "content": "Solve for y: 10 - 4 = -2"}
TALK = [SYSTEM, ASKED, {"role": "assistant", "content": "It's 5, naïvely."}, {"role": "user", "content": "速い 🚀?\n"}]
NEARLY_EQUAL = 0.05  # nats
CHATS = [[ASKED], [SYSTEM, ASKED], TALK]


def gaps(model, prompt, said):
    """How far each token of an answer is behind the one that the model finds likeliest there, in nats."""
    with torch.inference_mode():
        logits = model(torch.tensor([prompt + said])).logits[0, len(prompt) - 1 : -1]
    return (logits.amax(1) - logits.gather(1, torch.tensor(said)[:, None])[:, 0]).tolist()


def same_in_llama_cpp(folder, file, most=12):
    """llama.cpp with the file, after its prompts and answers were compared with those of the model in the folder.

    It computes in 16 bits: between tokens that are as good as equally likely it may choose the other one.
    """
    tokenizer, model = AutoTokenizer.from_pretrained(folder), AutoModelForCausalLM.from_pretrained(folder)
    llama_cpp, renderer = LlamaCpp(file), Renderer(tokenizer)
    for chat in CHATS:
        prompt = renderer.prompt(Conversation(chat))
        assert llama_cpp.prompt(chat) == prompt
        said, reason, read = llama_cpp.answered(chat, most)
        assert read == len(prompt) and (len(said) == most or reason == "stop")
        behind = gaps(model, prompt, said)
        assert max(behind) < NEARLY_EQUAL and sum(gap > 0 for gap in behind) <= max(1, most // 4), behind
    return llama_cpp


@pytest.mark.parametrize("name", MODELS)
def test_llama_cpp_splits_and_answers_as_models_of_every_family(tmp_path, name):
    folder = saved(name, tmp_path)
    write_gguf(folder, folder / "tiny.f16.gguf", "f16")
    llama_cpp = same_in_llama_cpp(folder, folder / "tiny.f16.gguf")
    for text, ours in zip(TEXTS, token_ids(AutoTokenizer.from_pretrained(folder), TEXTS), strict=True):
        assert llama_cpp.tokens(text)[-len(ours) :] == ours


@pytest.mark.parametrize(
    ("name", "steps"), [("zephyr-7b-beta", METASPACE), ("zephyr-7b-beta", PREPEND), ("gemma-3", SPACES)]
)
def test_llama_cpp_splits_as_tokenizers_of_sentencepiece_do(tmp_path, name, steps):
    folder = sentencepiece(saved(name, tmp_path, vocab_size=400), steps)
    write_gguf(folder, folder / "tiny.f16.gguf", "f16")
    same_in_llama_cpp(folder, folder / "tiny.f16.gguf", most=4)


def test_llama_cpp_stops_at_the_templates_token_where_the_tokenizer_has_another(tmp_path):
    # Not a token such as <|im_end|>, which llama.cpp knows by its text whatever the file says.
    (tmp_path / "done.jinja").write_text(ZEPHYR.replace("eos_token", "'<|done|>'"))
    tokenizer = train_tiny_tokenizer()
    load_template(tokenizer, str(tmp_path / "done.jinja"), "tiny.yaml")
    folder = saved("smollm2-135m", tmp_path / "model", vocab_size=len(tokenizer), tie_word_embeddings=False)
    tokenizer.save_pretrained(folder)
    model, stop = AutoModelForCausalLM.from_pretrained(folder), stop_token(tokenizer)
    assert (tokenizer.eos_token, tokenizer.decode([stop])) == ("</s>", "<|done|>")
    write_gguf(folder, folder / "tiny.f16.gguf", "f16")
    fourth = LlamaCpp(folder / "tiny.f16.gguf").answered([ASKED], 4)[0][-1]
    head = model.lm_head.weight.data
    head[[fourth, stop]] = head[[stop, fourth]]  # where it said that token, it now ends its answer
    model.save_pretrained(folder)
    write_gguf(folder, folder / "tiny.f16.gguf", "f16")
    said, reason, _ = LlamaCpp(folder / "tiny.f16.gguf").answered([ASKED], 12)
    assert reason == "stop" and len(said) <= 4


def test_the_file_that_a_merge_writes_answers_in_llama_cpp_as_the_merged_model(tmp_path):
    base, adapter, kwargs = trained(tmp_path, "LoRA", {"bits": 4})
    spec = MergeSpec.model_validate({"dtype": "float32", "gguf": "f16"})
    merge(Parts(base, adapter, tmp_path, kwargs), tmp_path / "merged", "tiny", spec, QUIET)
    same_in_llama_cpp(tmp_path / "merged", tmp_path / "merged" / "tiny.f16.gguf", most=4)


@pytest.fixture(scope="module")
def real_weights(tmp_path_factory):
    """A folder with SmolLM2's weights in full precision, and no tokenizer yet."""
    folder, settings = tmp_path_factory.mktemp("smollm2"), GgufConfig(dequantize=True)
    load_model(smollm2_folder(), gguf_file=GGUF, quantization_config=settings, dtype=torch.float32).save_pretrained(
        folder
    )
    return folder


@pytest.mark.long("real weights, three times")
@pytest.mark.parametrize("template", ["native", "chatml", "instruction"])
def test_real_weights_answer_in_llama_cpp_as_they_do_here_and_stop(real_weights, template):
    tokenizer, file = AutoTokenizer.from_pretrained(smollm2_folder(), gguf_file=GGUF), real_weights / "smollm2.f16.gguf"
    load_template(tokenizer, template, "smollm2.yaml")
    tokenizer.save_pretrained(real_weights)
    write_gguf(real_weights, file, "f16")
    llama_cpp = same_in_llama_cpp(real_weights, file, most=24)
    if template == "native":  # by the others, which it was not trained on, it goes on talking
        said, reason, _ = llama_cpp.answered([{"role": "user", "content": "Say hello."}], 64)
        assert reason == "stop" and len(said) < 64
