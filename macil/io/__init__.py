"""Files, locks, URIs and text, without any knowledge of the field."""
