"""Stages after training asked for alone: of any model folder, adapter or run a short plan of the same stages.

`given` is what a command is about, `options` its options as sections of a job, `chain` the stages, `planned`
the plan. Pure but for reading local files, as `launcher.plan`.
"""
