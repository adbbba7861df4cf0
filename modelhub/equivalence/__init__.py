"""The check: source, graph and target run side by side on seeded probes, and a report of what came out."""
