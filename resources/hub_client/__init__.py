"""Talks to a hub by the huggingface_hub client.

connection  an account on a hub: its repos, and publishing into one of them
retries     asks again after a failure that passes, until a deadline
versions    the versions of a published repo: which is in force, and going back
"""
