"""The report of runs as one HTML file; see `page.write_report`."""
