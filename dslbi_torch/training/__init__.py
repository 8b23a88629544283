"""The training laboratory: nets and data of the paper, recipes, and the loop that runs them."""
