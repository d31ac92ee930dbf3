"""Runs side by side: what was set otherwise, how the curves and scores differ, which answers changed.

`comparison.compare` decides, from what runs left in the store (`runs.read`); `text` and `page` show it. All
but `runs` and `page` are pure.
"""
