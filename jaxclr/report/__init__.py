"""A page that shows what was learned: one HTML file that needs nothing else."""

from jaxclr.report.page import write_report as write_report
