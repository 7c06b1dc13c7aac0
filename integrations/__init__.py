"""Adapters to what people already use: each module needs the package that it is named for.

None is imported here, and none is needed to run a bundle.
"""
