"""Policy-Behavior Bindings (draft section 3.2): schema, model, catalog, criteria, judging, signing."""
