"""Learning from being right (GRPO): the model's own answers, scored by the exam's metrics on rows of the train split.

kind            what such a training is made of, beside what all trainings are
prompts         the questions, and which of them are in which step
checks          whether answers to them can be rewarded
sampling        answers that are drawn, several to a question
shared_prompts  the likelihoods of several answers to a question, which is read once
rewards         what an answer is worth
vllm            answers that vLLM draws
group_trainer   trl's trainer of such groups, that may be killed
"""
