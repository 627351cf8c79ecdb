"""Files and batches that a provider keeps, in place of the gateway's own stores: who made what there, and how it is asked."""
