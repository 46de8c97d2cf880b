"""A recipe: one YAML file, with a file here for each section.

__main__         the command `python -m finetuning.recipe`
recipe           the whole recipe
base_model       the section `base_model`
dataset          the section `dataset`
source           a source of rows in that section
columns          what formats read beside their own columns, and which names carry meaning
chat             the section `chat`
checks           the section `checks`
lora             the section `lora`
variants         the section `variants`
trials           the variants that it makes, each as a recipe
variant_rules    what is wrong with the settings that it tries
training         the section `training`
method           those of its keys that say what is learned from
reward           what answers are rewarded for
resources        the section `resources`
evaluation       the section `evaluation`
judge            the section `evaluation.judge`, and what does not go with it
merge            the section `merge`
hub              the section `hub`
feedback         the section `feedback`
knowledge        the sections `knowledge` and `context`
spec             the base of all sections
loading          finds and loads recipes
names            what a recipe's file may be called
strict_yaml      reads YAML, and remembers the line of each key
mistakes         every mistake in a recipe at once, a line each
rules            keys that do not go together
data_rules       those of them that are about rows
local_files      finds the files of this machine that a source names
smoke            the recipe of a smoke run
reference        writes docs/recipe.md from the schema
benchmark_names  whether a benchmark exists
licenses         the licences that the Hub knows
sections         the part of a recipe that an asset is made from
"""
