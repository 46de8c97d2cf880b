"""trl's trainer of groups of answers (GRPO), with this project's generation, and checkpoints that hold it whole.

Sources: Shao et al., DeepSeekMath (2024), https://arxiv.org/abs/2402.03300; the losses are trl's own.
"""

from collections import defaultdict
from collections.abc import Mapping
from typing import Any

import torch
from transformers import Trainer
from trl import GRPOTrainer
from trl.trainer.sft_trainer import DataCollatorForLanguageModeling
from trl.trainer.utils import shuffle_sequence_dict, split_tensor_dict

from finetuning.evaluation.decoding import Decoding
from finetuning.reinforcement.prompts import GroupBatches, PromptRows
from finetuning.reinforcement.rewards import TOLD_OF_CODE, Rewards
from finetuning.reinforcement.sampling import draw
from finetuning.reinforcement.shared_prompts import packed, reads_once, scored
from finetuning.reinforcement.vllm import draw_as_here
from finetuning.tokens import NOT_SUPERVISED
from finetuning.training.attention import attention_backend
from finetuning.training.batches import EpochLoader, Order, StepBatches
from finetuning.training.resumable import Moment, ResumableTrainer
from finetuning.training.supervised_loss import scored_tokens, supervised_loss

State = dict[str, Any]

# By trl's names: what the curve shows, and what the progress line says.
SHOWN = {
    "reward": "reward",
    "reward_std": "spread",
    "completions/mean_length": "length",
    "completions/clipped_ratio": "cut_off",
    "frac_reward_zero_std": "no_signal",
    "kl": "kl",
    "entropy": "entropy",
    "sampling/sampling_logp_difference/mean": "mismatch",
}


class GroupTrainer(ResumableTrainer, GRPOTrainer):
    """Trains an adapter by answers of its own: each is rewarded by how much better than its group it is.

    Args:
        rewards: what an answer is worth.
        order: how questions become steps (`StepBatches`).
        own_head: make the logits by the model's own head, see `AdapterTrainer`.
        drawn_together: answers that are drawn at once, at most.
        settings: those of `ResumableTrainer` and `GRPOTrainer`.
    """

    def __init__(self, *, rewards: Rewards, order: Order, own_head: bool, drawn_together: int, **settings: Any) -> None:
        self.rewards, self.own_head, self.drawn_together = rewards, own_head, drawn_together
        self.order: Order = order
        self.without_signal: torch.Tensor | None = None
        super().__init__(reward_funcs=rewards.functions(), **settings)
        self.eos_token_ids = [rewards.stop]
        if self.use_vllm:
            draw_as_here(self.vllm_generation, rewards.stop)
        on_cpu = self.args.device.type == "cpu"
        self.shares_prompts = on_cpu and own_head and reads_once(self.accelerator.unwrap_model(self.model))
        pad: Any = self._tokenizer.pad_token_id
        self.collate_rows = DataCollatorForLanguageModeling(pad)
        adapted: Any = self.model
        for name, parameter in adapted.named_parameters():  # the adapter as it was, where KL is measured from it
            if ".ref." in name:
                parameter.requires_grad = False

    @property
    def settings(self) -> Any:
        """trl's settings."""
        return self.args

    def keep_start(self) -> None:
        """Measure KL from the adapter as it is now, where training goes on from one."""
        adapted: Any = self.model
        parameters = dict(adapted.named_parameters())
        for name, parameter in parameters.items():
            if ".ref." in name:
                parameter.data = parameters[name.replace(".ref.", ".default.")].data.clone()

    def get_train_dataloader(self) -> EpochLoader:
        """The questions of each step, as often as answers are drawn to them and learned from."""
        dataset: Any = self.train_dataset
        rows, args = PromptRows(dataset), self.settings
        steps = StepBatches(
            rows.lengths,
            args.generation_batch_size // self.num_generations,
            1,
            self.order,
            args.seed,
            args.process_index,
            args.world_size,
        )
        batches = GroupBatches(steps, args.num_generations, self.num_iterations * args.steps_per_generation)
        return EpochLoader(rows, batch_sampler=batches, collate_fn=list, generator=torch.Generator())

    def _tokenize_prompts(self, prompts: list[Any]) -> Any:
        return prompts, None, {}  # which are tokens already

    def _generate_single_turn(self, prompt_ids: list[list[int]], *args: Any, **settings: Any) -> Any:
        """Answers to the prompts, and their likelihoods where vLLM draws them, not the model that learns."""
        if self.use_vllm:
            return super()._generate_single_turn(prompt_ids, *args, **settings)
        model: Any = self.accelerator.unwrap_model(self.model)
        decoding = Decoding(self.settings.max_completion_length, self.temperature, self.top_p)
        step, found = f"step {self.state.global_step + 1}/{self.state.max_steps}", []
        was_training = model.training
        model.eval()
        try:
            with self.accelerator.autocast():
                for start in range(0, len(prompt_ids), self.drawn_together):
                    some = prompt_ids[start : start + self.drawn_together]
                    what = f"{step}: {start}/{len(prompt_ids)} answers drawn, {len(some)} at work"
                    found += draw(model, some, self.rewards.stop, decoding, (self.says, what))
        finally:
            model.train(was_training)
        return found, None

    def _prepare_inputs(self, inputs: Any) -> Any:
        """The next pass of the answers to these questions, which are drawn where it is the first one of theirs."""
        if isinstance(inputs, Mapping):  # rows with labels, whose loss is measured
            return Trainer._prepare_inputs(self, dict(inputs))
        passes = self.settings.steps_per_generation
        if self._step % (passes * self.num_iterations) == 0 or self._buffered_inputs is None:
            drawn: Any = self._generate_and_score_completions(inputs)
            # All are of one step. Only by `bnpo` does it matter which of them share a pass.
            copies = self._copies_here(len(drawn["advantages"]))
            drawn = shuffle_sequence_dict(drawn) if self.loss_type == "bnpo" else in_order(drawn, copies)
            self._buffered_inputs = split_tensor_dict(drawn, passes)
            self.says.update(f"step {self.state.global_step + 1}/{self.state.max_steps}: learning from the answers")
        return self._buffered_inputs[self._step % passes]

    def _copies_here(self, answers: int) -> int:
        """How many answers of a group are sure to stand together here, where a group may be shared by processes."""
        copies: int = self.settings.num_generations
        return copies if answers % copies == 0 else 1

    def _compute_loss(self, model: Any, inputs: dict[str, torch.Tensor]) -> torch.Tensor:
        # An answer that is as good as its group adds 0 to the loss and to each gradient, whatever its likelihood.
        silent = inputs["advantages"] == 0
        alone = self.own_head and self.beta == 0 and self.args.world_size == 1 and not self.aux_loss_enabled
        self.without_signal = silent if alone and "old_per_token_logps" not in inputs else None
        try:
            loss: torch.Tensor = super()._compute_loss(model, inputs)
        finally:
            self.without_signal = None
        return loss

    def _get_per_token_logps_and_entropies(
        self,
        model: Any,
        input_ids: torch.Tensor,
        attention_mask: torch.Tensor,
        logits_to_keep: int,
        batch_size: int | None = None,
        compute_entropy: bool = False,
        compute_aux_loss: bool = False,
        **of_images: Any,
    ) -> tuple[torch.Tensor, torch.Tensor | None, torch.Tensor | None]:
        """As trl has it, by the model's own head: of rows with no padding before them, and of those alone that count.

        The other rows have 0 for each token.
        """
        given = (input_ids, attention_mask, logits_to_keep)
        if not self.own_head or compute_aux_loss:
            return super()._get_per_token_logps_and_entropies(
                model, *given, batch_size, compute_entropy, compute_aux_loss, **of_images
            )
        silent = self.without_signal
        counted = torch.arange(len(input_ids)) if silent is None else (~silent).nonzero()[:, 0].cpu()
        likelihoods = torch.zeros(len(input_ids), logits_to_keep, device=input_ids.device)
        entropies = torch.zeros_like(likelihoods)
        if not len(counted):
            return likelihoods + self._no_gradient(), entropies.fill_(torch.nan), None  # which no mean counts
        found: list[tuple[torch.Tensor, torch.Tensor]] = []
        for rows in counted.split(batch_size or len(counted)):
            with self.accelerator.autocast():
                found.append(self._scored(model, input_ids[rows], attention_mask[rows], logits_to_keep))
        # The likelihoods are those of all tokens of these rows, one after the other.
        answers = torch.zeros_like(likelihoods, dtype=torch.bool)
        answers[counted] = attention_mask[counted, -logits_to_keep:].bool()
        likely, spread = (torch.cat(parts) for parts in zip(*found, strict=True))
        # Of rows that are not read, the mean of the others stands for what is not known.
        entropies += spread.mean() if len(spread) else 0.0
        return likelihoods.masked_scatter(answers, likely), entropies.masked_scatter(answers, spread), None

    def _scored(
        self, model: Any, ids: torch.Tensor, mask: torch.Tensor, answers: int
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Log likelihood and entropy of each token of the answers, which are in the last so many places."""
        head: Any = self.accelerator.unwrap_model(model).get_output_embeddings()
        if not self.shares_prompts:
            return scored_tokens(model, head, at_the_left(ids, mask, answers), self.temperature)
        inside = mask.bool()
        prompts = [row[:-answers][kept[:-answers]].tolist() for row, kept in zip(ids, inside, strict=True)]
        said = [row[-answers:][kept[-answers:]].tolist() for row, kept in zip(ids, inside, strict=True)]
        return scored(model, head, packed(prompts, said, ids.device), self.temperature)

    def training_step(self, model: Any, inputs: Any, *args: Any, **settings: Any) -> torch.Tensor:
        """The loss of a pass, whose gradients were added to the parameters'."""
        longest = max(len(row["prompt"]) for row in inputs) + self.settings.max_completion_length
        # Around the backward pass too, in which activation checkpointing goes forward once more.
        with attention_backend(self.args.device.type, longest):
            return super().training_step(model, inputs, *args, **settings)

    def _no_gradient(self) -> torch.Tensor:
        """0, whose gradient is 0 by each trained number: the optimizer makes its step all the same, as trl's does."""
        return torch.stack([(p * 0).sum() for p in self.trainable_parameters()]).sum()

    def trainable_parameters(self) -> list[torch.nn.Parameter]:
        """All that is trained."""
        adapted: Any = self.model
        return [p for p in adapted.parameters() if p.requires_grad]

    def collated(self, rows: list[State]) -> State:
        """A batch of rows whose loss is measured."""
        return self.collate_rows(rows)

    def measured(self, inputs: State) -> torch.Tensor:
        """Of a batch of the eval split, the summed loss of its references and the number of their tokens."""
        model: Any = self.model
        head = self.accelerator.unwrap_model(model).get_output_embeddings()
        with self.accelerator.autocast():
            loss, count = supervised_loss(model, head, inputs)
        return torch.stack([loss.double(), count.double()])

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Log these numbers, those of a step with what trl has counted since the last ones."""
        if any(name.startswith("eval_") for name in logs):
            Trainer.log(self, logs, start_time)
        else:
            super().log(logs, start_time)

    def go_back(self, moment: Moment) -> None:
        """Undo a step that was begun since then, and switch the adapter on, which the step may have switched off."""
        adapted: Any = self.accelerator.unwrap_model(self.model)
        adapted.base_model.enable_adapter_layers()
        adapted.set_adapter("default")
        super().go_back(moment)

    def own_state(self) -> State:
        """Where it is in the answers that were drawn, these if they are learned from again, and what was counted."""
        begun = self._step % (self.settings.steps_per_generation * self.num_iterations) != 0
        return {
            "step": self._step,
            "answers": self._buffered_inputs if begun else None,
            "counted": {name: list(values) for name, values in self._metrics["train"].items()},
        }

    def take_own_state(self, state: Mapping[str, Any]) -> None:
        """Go on from what `own_state` was."""
        self._step, self._buffered_inputs = state["step"], state["answers"]
        self._metrics["train"] = defaultdict(list, {name: list(values) for name, values in state["counted"].items()})

    def in_words(self) -> str:
        """Reward, spread, length and share of groups without a signal of the last step."""
        last = {
            shown: self._metrics["train"][name][-1] for name, shown in SHOWN.items() if self._metrics["train"].get(name)
        }
        if "reward" not in last:
            return ""
        kl = f" · KL {last['kl']:.3g}" if "kl" in last else ""
        return (
            f"reward {last['reward']:.3f} ± {last['spread']:.2f} · {last['length']:.0f} tokens an answer · "
            f"{last['no_signal']:.0%} of groups without a signal{kl}"
        )

    def summary(self) -> State:
        """The curve of rewards: for each point the step, each term by itself, and what `SHOWN` names."""
        names = SHOWN | {f"rewards/{name}/mean": f"reward/{name}" for name in self.rewards.weights}
        for told in ("no_number", *TOLD_OF_CODE):
            names |= {f"rewards/{name}/{told}": f"{told}/{name}" for name in self.rewards.weights}
        points = [entry for entry in self.state.log_history if "reward" in entry]
        return {
            "reward_curve": [
                {"step": point["step"]}
                | {shown: point[name] for name, shown in names.items() if point.get(name) is not None}
                for point in points
            ]
        }


def in_order(drawn: State, copies: int) -> State:
    """The answers of a step by groups of so many copies of a question, those with most that is learned first."""
    lengths = drawn["completion_mask"].sum(dim=1) + drawn["prompt_mask"].sum(dim=1)
    of_groups = torch.where(drawn["advantages"] == 0, 0, lengths).view(-1, copies).sum(dim=1)
    order = torch.argsort(of_groups, descending=True, stable=True)
    order = (order[:, None] * copies + torch.arange(copies, device=order.device)).flatten()
    return {
        name: value[order] if torch.is_tensor(value) and value.ndim > 0 and len(value) == len(order) else value
        for name, value in drawn.items()
    }


def at_the_left(ids: torch.Tensor, mask: torch.Tensor, answers: int) -> dict[str, torch.Tensor]:
    """Rows whose tokens are in the middle, moved to the left, with the last `answers` places of them as labels."""
    first, lengths = mask.argmax(dim=1, keepdim=True), mask.sum(dim=1, keepdim=True)
    places = torch.arange(int(lengths.max()), device=ids.device)
    inside, index = places < lengths, (first + places).clamp(max=ids.shape[1] - 1)
    moved = ids.gather(1, index).masked_fill(~inside, 0)
    labels = moved.masked_fill(~inside | (index < ids.shape[1] - answers), NOT_SUPERVISED)
    return {"input_ids": moved, "labels": labels}
