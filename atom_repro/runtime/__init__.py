"""The modular runtime: residency of modules, schedules of stages, timeline."""
