"""What computes, as plain Python without Dagster; a package for each section of the recipe.

recipe         one YAML file a run: its schema, and every mistake in it at once
dataset        raw rows from any source
knowledge      documents, the passages that they are cut into, and how those are found
chat           conversations, tokens and labels
checks         what is checked before training
base_model     the frozen weights
lora           the adapter
fused          layers that compute in fewer steps while they are trained
variants       which of several settings an adapter is trained with
training       the training, as a process that may be killed and goes on
reinforcement  the training by rewards for the model's own answers
memory         what training will need of the memory, and what would fit
evaluation     the exam and the verdict
judge          a model that says which of two answers is better
merge          base and adapter as one model, and as one GGUF file
hub            the files that are published
assistant      answers of the tuned model and its base, to whoever asks
leaderboard    the exams of all recipes beside each other
feedback       what people say of answers
freshness      what a recipe is made from now, and whether that changed
settings       the FINETUNING_ variables
errors         the exceptions that a user is meant to read
hub_errors     what went wrong between this machine and the hub, in a sentence
record         JSON documents that one step leaves for the next
bounded_yaml   YAML from elsewhere, never more than can be read
git_lfs        what stands for a file that was never fetched
digests        the sha256 of a file
paths          a path of this machine, or the id of a repo
durable        files that are written whole, and stay when the process dies
plots          pictures for report and UI
out_of_memory  whether memory ran out, as each library says it
garbage        how often Python looks for objects that nothing refers to
progress       lines that tell how far a long piece of work is
public_names   what a published page may call things
secrets        text that looks like a key or password
tokens         what a token is trained as
quantization   bitsandbytes' configuration of the frozen weights
"""
