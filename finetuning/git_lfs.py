"""What Git LFS leaves in the place of a large file that was never fetched: a few lines of text that name it."""

BEGINS = b"version https://git-lfs.github.com/spec/"
IS_A_POINTER = "is a Git LFS pointer, and not the file itself. Run `git lfs pull` in its folder"
