"""The loss of a training step and its gradients: tokens, weights, passes."""
