"""The assets: a file for each, which says what it needs, what it leaves, and what the UI shows of it.

documents              what answers are looked up in, as Markdown
passages               the documents, cut at headings and paragraphs
retrieval_index        what finds the passages for a question
raw_dataset            the rows that a recipe names, as their sources have them
chat_dataset           rows as conversations, and as the tokens that training sees
quantized_base_model   the frozen weights that adapters are trained on
variants               which of several settings the adapter is trained with
lora_adapter           what training adds to the base model
evaluation_report      base and tuned model beside each other, and the verdict
judging                the judge of a recipe, behind an API or on this machine
leaderboard            the exams of all recipes beside each other
published_repo         adapter, card, recipe and report on the hub
merged_model           base model and adapter as one model
published_merged_repo  the merged model on the hub
hub_state              what a published repo holds now
partitions             one partition for each recipe
external_assets        recipes, data and base models as external parents of the line
before_training        whether what follows a training could only fail, asked before it is paid for
starting_adapter       the adapter that another one goes on from
merged_adapters        the adapters that are merged into one
lineage                how an adapter came to be, found from the artifact at hand
exams                  the exams in force, and the one that a person names
examination            who answers the exam, and which answers are there already
publishing_lock        refuses to publish without a passed verdict on the very same adapter
checks                 what was judged of the data, as asset checks
materialized           the event that records an artifact, the same for every asset
tables                 the columns of an asset's table
failures               turns a user's mistake into the message of the step that failed
"""
