"""GGUF files: read back by transformers they are the model that was written, and what they cannot hold is refused."""

import json

import pytest
import torch
from gguf import GGMLQuantizationType, GGUFReader
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedTokenizerFast

from finetuning.chat.template import load_template, stop_token
from finetuning.chat.tokenization import token_ids
from finetuning.errors import FinetuningError
from finetuning.merge.gguf_file import FAMILIES, TEXTS, require_exportable, write_gguf
from finetuning.merge.gguf_vocabulary import SPLITS, split_of
from finetuning.merge.merged_model import compare, load_gguf
from tests.conftest import train_tiny_tokenizer
from tests.tiny_models import ZEPHYR, save_tiny_model

# Models with weights large enough for attention to choose, and with what a file takes for granted of their family.
MODELS = {
    "gemma-2": {"query_pre_attn_scalar": 256, "head_dim": 256},
    "gemma-3": {"query_pre_attn_scalar": 256, "head_dim": 256, "num_hidden_layers": 6, "layer_types": None},
    "mistral-7b-fennec": {},
    "qwen-2": {},
    "qwen-3": {"head_dim": 128},
    "smollm2-135m": {},
    "zephyr-7b-beta": {"sliding_window": 128},
}


def saved(name, folder, template=ZEPHYR, **settings):
    return save_tiny_model(name, folder, template, **{"initializer_range": 0.2, **MODELS.get(name, {}), **settings})


def logits(model):
    ids = torch.randint(3, 250, (4, 100), generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        return list(model(ids).logits)


def test_every_family_that_can_be_exported_is_here(tmp_path):
    types = {json.loads((saved(name, tmp_path / name) / "config.json").read_text())["model_type"] for name in MODELS}
    assert types == FAMILIES.keys()


@pytest.mark.parametrize("name", MODELS)
def test_a_file_that_is_read_back_has_the_logits_of_the_model(tmp_path, name):
    folder = saved(name, tmp_path)
    require_exportable(folder, folder, "tiny.yaml")
    write_gguf(folder, folder / "tiny.f16.gguf", "f16")
    model, again = AutoModelForCausalLM.from_pretrained(folder), load_gguf(folder / "tiny.f16.gguf")
    assert again.config.tie_word_embeddings == model.config.tie_word_embeddings
    read, written = again.state_dict(), model.state_dict()
    assert read.keys() == written.keys()
    for key, weight in written.items():
        torch.testing.assert_close(read[key], weight, rtol=1e-3, atol=1e-6, msg=key)
    assert compare(logits(model), logits(again)).kl < 1e-4


@pytest.mark.parametrize(("type", "kl"), [("f16", 1e-4), ("bf16", 5e-3), ("q8_0", 5e-2)])
def test_matrices_have_the_type_that_was_asked_for_and_norms_are_exact(tmp_path, type, kl):
    folder = saved("smollm2-135m", tmp_path)
    write_gguf(folder, folder / "tiny.gguf", type)
    tensors = GGUFReader(folder / "tiny.gguf").tensors
    assert {tensor.tensor_type.name.lower() for tensor in tensors if len(tensor.shape) > 1} == {type}
    assert {tensor.tensor_type for tensor in tensors if len(tensor.shape) == 1} == {GGMLQuantizationType.F32}
    found = compare(logits(AutoModelForCausalLM.from_pretrained(folder)), logits(load_gguf(folder / "tiny.gguf")))
    assert 0 < found.kl < kl


def test_rows_that_no_block_fits_are_stored_in_16_bits(tmp_path):
    folder = saved("smollm2-135m", tmp_path, intermediate_size=72)
    write_gguf(folder, folder / "tiny.gguf", "q8_0")
    types = {tensor.name: tensor.tensor_type.name for tensor in GGUFReader(folder / "tiny.gguf").tensors}
    assert types["blk.0.ffn_down.weight"] == "F16" and types["blk.0.ffn_up.weight"] == "Q8_0"


def test_a_model_in_several_files_is_exported_whole(tmp_path):
    folder = saved("smollm2-135m", tmp_path)
    model = AutoModelForCausalLM.from_pretrained(folder)
    (folder / "model.safetensors").unlink()
    model.save_pretrained(folder, max_shard_size="100KB")
    assert len(list(folder.glob("*.safetensors"))) > 2
    write_gguf(folder, folder / "tiny.gguf", "f16")
    assert compare(logits(model), logits(load_gguf(folder / "tiny.gguf"))).kl < 1e-4


@pytest.mark.parametrize("name", ["phi-2", "falcon-7b", "gemma-2b"])
def test_a_model_of_another_family_is_refused_beside_those_that_can_be_exported(tmp_path, name):
    folder = saved(name, tmp_path)
    with pytest.raises(FinetuningError, match=r"tiny\.yaml: merge\.gguf: models of type \w+ cannot .* gemma2, .*llama"):
        require_exportable(folder, folder, "tiny.yaml")


LOST = {
    "stretched positions": ("llama-3", {}, "rope_parameters: .*llama3.* would take .*default"),
    "biases": ("smollm2-135m", {"attention_bias": True}, "attention_bias: True, .* would take False"),
    "another activation": ("smollm2-135m", {"hidden_act": "gelu"}, "hidden_act: gelu, .* would take silu"),
    "another scale": ("gemma-2", {"query_pre_attn_scalar": 32}, "query_pre_attn_scalar: 32, .* would take 256"),
    "wide heads": ("qwen-3", {"head_dim": 32}, "head_dim: 32, .* would take 128"),
    "another order of layers": (
        "gemma-3",
        {"num_hidden_layers": 2, "layer_types": ["sliding_attention", "full_attention"]},
        "layer_types",
    ),
}


@pytest.mark.parametrize("case", LOST)
def test_a_setting_that_a_file_would_lose_is_refused_by_its_name(tmp_path, case):
    name, settings, message = LOST[case]
    folder = saved(name, tmp_path, **settings)
    with pytest.raises(FinetuningError, match=message):
        require_exportable(folder, folder, "tiny.yaml")


def test_a_window_that_the_file_has_no_word_for_bounds_its_texts(tmp_path):
    folder = saved("zephyr-7b-beta", tmp_path)
    write_gguf(folder, folder / "tiny.gguf", "f16")
    assert load_gguf(folder / "tiny.gguf").config.max_position_embeddings == 128


def tokens_come_back(folder):
    """The tokenizer of the file that is written of the model in `folder`, after it was compared with the one there."""
    ours, alone = AutoTokenizer.from_pretrained(folder), folder / "alone"
    alone.mkdir()  # beside a tokenizer.json transformers reads that one
    write_gguf(folder, alone / "tiny.gguf", "f16")
    theirs = AutoTokenizer.from_pretrained(alone, gguf_file="tiny.gguf")
    chat = [{"role": "user", "content": TEXTS[0]}, {"role": "assistant", "content": TEXTS[1]}]
    texts = [*TEXTS, ours.apply_chat_template(chat, tokenize=False)]
    assert token_ids(theirs, texts) == token_ids(ours, texts)
    assert theirs.chat_template == ours.chat_template and theirs.eos_token_id == stop_token(ours)
    assert [theirs.decode(ids) for ids in token_ids(theirs, texts)] == [ours.decode(x) for x in token_ids(ours, texts)]
    return theirs


def test_the_tokenizer_of_real_weights_comes_back_with_its_tokens_template_and_stop_token(tmp_path, smollm2_tokenizer):
    folder = saved("smollm2-135m", tmp_path, vocab_size=len(smollm2_tokenizer))
    smollm2_tokenizer.save_pretrained(folder)
    assert tokens_come_back(folder).get_vocab() == smollm2_tokenizer.get_vocab()


def test_new_chat_tokens_are_in_the_file_and_the_one_that_ends_an_answer_ends_the_text(tmp_path):
    tokenizer = train_tiny_tokenizer()
    load_template(tokenizer, "chatml", "tiny.yaml")
    folder = saved("smollm2-135m", tmp_path, vocab_size=len(tokenizer) + 7)
    tokenizer.save_pretrained(folder)
    theirs = tokens_come_back(folder)
    assert theirs.eos_token == "<|im_end|>" and tokenizer.eos_token == "</s>"
    control = {token.content for token in theirs.added_tokens_decoder.values() if token.special}
    assert {"<|im_start|>", "<|im_end|>"} <= control
    assert load_gguf(folder / "alone" / "tiny.gguf").config.eos_token_id == theirs.eos_token_id


def test_tokens_for_which_the_embeddings_have_yet_to_grow_are_no_hindrance(tmp_path):
    base, tokenizer = saved("smollm2-135m", tmp_path / "base"), train_tiny_tokenizer()
    load_template(tokenizer, "chatml", "tiny.yaml")
    tokenizer.save_pretrained(tmp_path / "tokenizer")
    require_exportable(base, tmp_path / "tokenizer", "tiny.yaml")


def sentencepiece(folder, steps):
    """A tokenizer of characters and bytes, as Llama 2, Mistral and Gemma have it, in place of the one in `folder`."""
    tokenizer = Tokenizer(models.BPE(byte_fallback=True, fuse_unk=True, unk_token="<unk>"))
    for name, step in steps.items():
        setattr(tokenizer, name, step)
    decoding = [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()]
    tokenizer.decoder = decoders.Sequence(decoding if steps is SPACES else [*decoding, decoders.Strip(" ", 1, 0)])
    control, some_bytes = ["<unk>", "<s>", "</s>", "<pad>"], [f"<0x{byte:02X}>" for byte in range(256)]
    trainer = trainers.BpeTrainer(vocab_size=390, special_tokens=control + some_bytes, show_progress=False)
    tokenizer.train_from_iterator(["Solve for y: 10 - 4 = -2 - 1y + 9y .", "The answer is 5."] * 20, trainer)
    state = json.loads(tokenizer.to_str())
    state["added_tokens"] = [token for token in state["added_tokens"] if token["content"] in control]
    if steps is not SPACES:  # as Mistral's readers go by scores, Gemma's by the order of tokens
        vocabulary, learned = state["model"]["vocab"], len(control + some_bytes)
        last = max(vocabulary.values())
        state["model"]["vocab"] = {
            token: number if number < learned else last + learned - number for token, number in vocabulary.items()
        }
    tokenizer = Tokenizer.from_str(json.dumps(state))
    tokenizer.post_processor = processors.TemplateProcessing("<s> $A", special_tokens=[("<s>", 1)])
    names = {"bos_token": "<s>", "eos_token": "</s>", "pad_token": "<pad>", "unk_token": "<unk>"}
    whole = PreTrainedTokenizerFast(tokenizer_object=tokenizer, **names)
    whole.chat_template = "{{ bos_token }}" + ZEPHYR
    for path in folder.glob("token*"):
        path.unlink()
    whole.save_pretrained(folder)
    return folder


METASPACE = {"pre_tokenizer": pre_tokenizers.Metaspace(prepend_scheme="first", split=False)}
SPACES = {
    "normalizer": normalizers.Replace(" ", "▁"),
    "pre_tokenizer": pre_tokenizers.Split(" ", "merged_with_previous"),
}
ALWAYS = {"pre_tokenizer": pre_tokenizers.Metaspace(prepend_scheme="always", split=False)}
PREPEND = {"normalizer": normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])}


@pytest.mark.parametrize(("name", "steps"), [("zephyr-7b-beta", METASPACE), ("gemma-2", SPACES), ("gemma-3", SPACES)])
def test_tokens_of_sentencepiece_come_back_from_scores(tmp_path, name, steps):
    folder = sentencepiece(saved(name, tmp_path, vocab_size=400), steps)
    require_exportable(folder, folder, "tiny.yaml")
    tokens_come_back(folder)


@pytest.mark.parametrize(("steps", "prefixes"), [(PREPEND, True), (ALWAYS, True), (METASPACE, False)])
def test_the_file_says_whether_texts_after_control_tokens_begin_with_a_space(tmp_path, steps, prefixes):
    folder = sentencepiece(saved("zephyr-7b-beta", tmp_path, vocab_size=400), steps)
    require_exportable(folder, folder, "tiny.yaml")
    write_gguf(folder, folder / "tiny.gguf", "f16")
    after = AutoTokenizer.from_pretrained(folder).tokenize("</s>a")
    assert after == (["</s>", "▁", "a"] if prefixes else ["</s>", "a"])
    fields = GGUFReader(folder / "tiny.gguf").fields
    assert fields["tokenizer.ggml.add_space_prefix"].contents() is prefixes


def test_a_tokenizer_that_would_be_read_as_another_is_refused_with_the_text(tmp_path):
    folder = sentencepiece(saved("zephyr-7b-beta", tmp_path, vocab_size=400), SPACES)
    with pytest.raises(FinetuningError, match=r"the file's tokenizer splits .* otherwise, from token 0 on: .*▁"):
        require_exportable(folder, folder, "tiny.yaml")


def test_ways_to_split_text_have_the_names_that_llama_cpp_gave_them():
    byte_level = {"type": "ByteLevel", "add_prefix_space": False, "use_regex": False}
    for regex, name in SPLITS.items():
        split = {"type": "Split", "pattern": {"Regex": regex}, "behavior": "Isolated"}
        assert split_of({"pre_tokenizer": {"type": "Sequence", "pretokenizers": [split, byte_level]}}) == name
    digits = {"type": "Digits", "individual_digits": True}
    whole = byte_level | {"use_regex": True}
    assert split_of({"pre_tokenizer": {"type": "Sequence", "pretokenizers": [digits, whole]}}) == "smollm"
    with pytest.raises(FinetuningError, match="by Punctuation and ByteLevel in a way that has no name"):
        split_of({"pre_tokenizer": {"type": "Sequence", "pretokenizers": [{"type": "Punctuation"}, whole]}})
