"""How fast contrastive pretraining is here, measured beside other libraries in one run: `make bench`."""
