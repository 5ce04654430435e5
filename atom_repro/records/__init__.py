"""Run records: written once, with provenance; keys that tell when a run can be reused."""
