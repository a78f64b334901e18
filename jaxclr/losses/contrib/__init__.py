"""Losses from other modalities. Their public names are those of `jaxclr.losses`.

Losses of graphs are not here: a graph's nodes are rows like any others, and `weighted_info_nce`
serves any weighted pairs.
"""
