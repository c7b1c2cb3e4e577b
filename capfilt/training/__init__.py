"""Training MED: objectives, data order, the loop."""
