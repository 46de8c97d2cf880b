"""Talks to what was trained: a tuned model beside its base, at the terminal, over HTTP and on a page.

__main__  the command `python -m resources.assistant`
sources   what is talked to: a recipe's artifacts, or a hub's repo
requests  what may be asked over HTTP
feedback  what people say of answers, over HTTP
answers   one request while it is answered
app       the HTTP server, with the page in page/
terminal  the chat at the terminal
"""
