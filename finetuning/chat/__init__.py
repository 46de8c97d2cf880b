"""Conversations as tokens and labels, by the base model's chat template.

chat_dataset       writes the tokenized data set
conversations      reads raw rows as conversations, batch by batch
rendering          renders and tokenizes conversations piece by piece
layouts            what a chat template writes around the turns
trial              tries a chat template out where it can do no harm
template           gives a tokenizer its chat template
template_settings  writes date and arguments into a template
abilities          what a template has a place for, beside text
answers            what the model has to say, in what a template writes
earlier_answers    answers that are learned by themselves
template_analysis  whether a template only writes the text of turns
tokenizer          loads a base model's tokenizer
tokenization       the tokens of a text, and no control token among them
vocabulary         adds the control tokens that a template needs
splits             train, eval or neither, so that no question is in both
shuffling          shuffles the rows of a file with bounded memory
text_rows          tokens of texts that are no conversations
tokenized_rows     collects the rows of both splits
chat_summary       counts, lengths and findings that later steps read
layout_search      finds where a chat template puts the turns
segments           the text of a conversation, divided into prompts and answers
"""
