"""What only one chapter computes, draws and lays out: a module a chapter, and the models beside it."""
