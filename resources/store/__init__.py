"""Where artifacts are kept: written whole or not at all, wherever that is.

store         what every store can do
disk          artifacts in a folder of this machine
object_store  artifacts on object storage, with a cache on this machine
objects       single objects at an address, each whole or absent
multipart     uploads a large file in parts, and goes on where it was cut off
artifact      one complete output of an asset, and its manifest
plan          an artifact that is asked for: found by its fingerprint, or written
locks         one writer at a time, and readers whose artifact stays
retention     which artifacts nothing refers to, and their removal
download      brings a stored artifact to this machine
"""
