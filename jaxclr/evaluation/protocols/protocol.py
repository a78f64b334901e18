"""The base class of protocols."""

import dataclasses
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, ClassVar, NamedTuple

from jaxclr.evaluation.subject import Subject
from jaxclr.fields import check_fields


class Result(NamedTuple):
    """The result of a protocol for one seed.

    Attributes:
      figures: by name, a value for each draw.
      chosen: for a figure, the settings that were chosen on training data, by name.
    """

    figures: dict[str, tuple[float, ...]]
    chosen: Mapping[str, dict[str, Any]] = MappingProxyType({})


@dataclasses.dataclass(frozen=True)
class Protocol:
    """A way to evaluate an encoder. Its fields are its settings, which go into the record."""

    needs_labels: ClassVar[bool] = True
    elsewhere: ClassVar[bool] = False  # only on other data than the run's
    is_random: ClassVar[bool] = True  # whether a seed changes anything
    percent: ClassVar[bool] = True  # whether figures are shares, shown in %

    def __post_init__(self) -> None:
        check_fields(self)

    def run(self, subject: Subject, seed: int) -> Result:
        """The figures of one seed.

        Raises:
          UserError: settings and data do not fit each other.
        """
        raise TypeError(f"{type(self).__name__} must define run(subject, seed).")
