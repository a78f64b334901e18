"""A page that shows what was learned: one HTML file that needs nothing else. `page.write_report` writes it."""
