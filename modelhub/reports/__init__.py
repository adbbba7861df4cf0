"""Reports of a check for people and for machines: JUnit XML, Markdown and one HTML page, all drawn from report JSON."""
