"""Training of the feed-forward network on random scenes and clips, and its figures on unseen ones.

Names are imported from the modules: clips (`msdyn.feedforward.data`) are made into the batches of
`batches`, which the loop here reads from them.
"""
