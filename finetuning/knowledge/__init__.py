"""Documents that answers are looked up in, and what a model is shown of them.

documents   the documents that a recipe names, as Markdown, each under a name of its own
extraction  the text of a file: Markdown, plain text, HTML or PDF
passages    cuts documents at headings and paragraphs
embedding   the model that says what texts mean, as numbers
index       an index of passages by words and by meaning
retriever   finds the passages for a question
context     the prompt with passages: the same in training, exam and use
library     the documents of a model that is in use
rows        gives each row of a data set the passages that it is learned or asked with
summaries   what each step leaves for the next
"""
