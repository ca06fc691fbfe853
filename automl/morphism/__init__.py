"""Architecture graphs, the moves that keep their function, and the weights of the children."""
