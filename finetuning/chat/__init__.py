"""Conversations as tokens and labels, by the base model's chat template.

chat_dataset       writes the tokenized data set
conversations      reads raw rows as conversations, batch by batch
rendering          renders and tokenizes conversations piece by piece
layouts            what a chat template writes around the turns
template           gives a tokenizer its chat template
template_analysis  whether a template only writes the text of turns
tokenizer          loads a base model's tokenizer
tokenization       the tokens of a text, and no control token among them
vocabulary         adds the control tokens that a template needs
splits             train, eval or neither, so that no question is in both
shuffling          shuffles the rows of a file with bounded memory
tokenized_rows     collects the rows of both splits
chat_summary       counts, lengths and findings that later steps read
layout_search      finds where a chat template puts the turns
segments           the text of a conversation, divided into prompts and answers
"""
