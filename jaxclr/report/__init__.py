"""A page that shows what was learned: one HTML file, which `page.write_report` writes."""
