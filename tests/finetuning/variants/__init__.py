"""Tests of `finetuning.variants`."""
