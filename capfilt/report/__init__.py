"""A run as one HTML file that needs no others: figures, histograms, galleries and a what-if for the cut."""
