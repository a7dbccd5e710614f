"""What only one chapter computes, draws and lays out: a module a chapter, named like it, and the models
beside it.
"""
