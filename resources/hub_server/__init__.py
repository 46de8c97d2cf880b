"""A hub on this machine that speaks the Hub's HTTP API: `python -m resources.hub_server --state DIR`.

__main__      the command
app           every address that the server answers
serving       the life of the process: its port, and its end
local         finds or starts the hub of a state folder
state_folder  what a server and its users agree on in that folder
store         repos on the disk, and their files by content
repos         create, list, set up and delete repos
commits       one atomic change of a branch
refs          branches and tags
reading       descriptions, folders, history, and contents of files
pages         pages for a person to look at
cards         the YAML block at the head of a README
lfs           large files over Git LFS
xet           large files over the Xet protocol
xorbs         the two file formats of Xet uploads
access        who asks for which repo, and whether they may
accounts      tokens, users, and what those may do
errors        how a request is refused
faults        faults that a test may ask for
"""
