"""Run records: written once, with provenance; keys that identify reusable runs."""
