"""Servers: a local box for many callers, and a tuned prompt in front of a model."""
