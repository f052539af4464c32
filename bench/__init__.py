"""What Moorage costs, measured beside its rivals: `python -m bench.run`. The method is in docs/explanation/how-we-measure.md."""
