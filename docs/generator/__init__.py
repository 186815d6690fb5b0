"""Writes the pages of docs/reference/ from where flags, exit codes and fields are declared: `python -m docs.generator`.

It reads the other packages and none of them reads it.
"""
