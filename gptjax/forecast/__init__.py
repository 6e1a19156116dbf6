"""Forecasts the needs and the duration of a run on devices that this machine need not have, from its compiled step."""
