"""The affinity matrix of two sets of embeddings: its rows, its diagonal and its asymmetry, never the whole of it."""

from jaxclr.affinity.asymmetry import asymmetry as asymmetry
from jaxclr.affinity.checks import check_embeddings as check_embeddings
from jaxclr.affinity.checks import check_choice as check_choice
from jaxclr.affinity.checks import check_positive as check_positive
from jaxclr.affinity.collectives import AxisName as AxisName
from jaxclr.affinity.collectives import batch_size as batch_size
from jaxclr.affinity.collectives import gather_rows as gather_rows
from jaxclr.affinity.collectives import row_ids as row_ids
from jaxclr.affinity.collectives import sum_over as sum_over
from jaxclr.affinity.logsumexp import Implementation as Implementation
from jaxclr.affinity.logsumexp import attention as attention
from jaxclr.affinity.logsumexp import labelled_logsumexp as labelled_logsumexp
from jaxclr.affinity.logsumexp import row_logsumexp as row_logsumexp
from jaxclr.affinity.logsumexp import self_labelled_logsumexp as self_labelled_logsumexp
from jaxclr.affinity.logsumexp import self_logsumexp as self_logsumexp
from jaxclr.affinity.matrix import matrix as matrix
from jaxclr.affinity.pairs import pair_sum as pair_sum
from jaxclr.affinity.pairs import row_logsumexp_of as row_logsumexp_of
from jaxclr.affinity.pairs import row_max as row_max
from jaxclr.affinity.pairs import row_sum as row_sum
from jaxclr.affinity.rows import positives as positives
from jaxclr.affinity.rows import unit_rows as unit_rows
from jaxclr.affinity.whitening import moments as moments
from jaxclr.affinity.whitening import whiten as whiten
