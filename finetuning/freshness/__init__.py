"""What a recipe is made from right now, and whether that changed.

versions  the version of each input, as a short text
changes   which recipes' inputs changed since the last look
"""
