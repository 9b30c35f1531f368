"""The losses of Mask R-CNN and all that only training needs: matching, sampling, a trunk whose batch norms are folded.

Same losses and gradients as torchvision's, in less time and memory, and nothing waits for a GPU. `losses` has the step
on one screen; `prepare` what is chosen once before.
"""
