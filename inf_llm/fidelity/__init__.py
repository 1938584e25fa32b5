"""How nearly a memory reads like full attention, measured on a model and texts of one's own."""
