"""Measurements that are run by hand; nothing in here is installed with winspect."""
