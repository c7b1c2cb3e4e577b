"""A run as one HTML file: figures, histograms, galleries and a what-if for the cut, all of it inside the file."""
