"""Output for people: the live display, tables, plans, the doctor's report. Figures and reports belong here."""
