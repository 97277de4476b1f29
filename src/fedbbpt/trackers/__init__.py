"""Trackers: who keeps the numbers of many runs. One file each."""
