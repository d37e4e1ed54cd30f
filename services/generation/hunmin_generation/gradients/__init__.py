"""Input gradients on the weights that decode, at low priority. Knows no engine."""
