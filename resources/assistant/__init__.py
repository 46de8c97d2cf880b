"""Talks to what was trained: a tuned model beside its base, at the terminal, over HTTP and on a page.

sources   what is talked to: a recipe's artifacts, or a hub's repo
requests  what may be asked over HTTP
app       the HTTP server
terminal  the chat at the terminal
page      the web page
"""
