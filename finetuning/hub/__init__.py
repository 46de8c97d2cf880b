"""The files that go to the hub.

published_repo  which files a repo gets
model_card      the repo's README
loading_code    the code on it that loads the model
endpoints       the shell lines before that code, on a hub other than the public one
modelfile       what Ollama reads beside a GGUF file
public_recipe   the recipe as it is published
event_files     the training curves that the Hub shows
publication     where on the hub something lies now
rendering       fills the texts in templates/ with values
"""
