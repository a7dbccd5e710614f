"""nodelib: neural ODEs on MNIST, their gradients, attacks on them, and the dynamics of their states."""

__version__ = "0.1.0"
