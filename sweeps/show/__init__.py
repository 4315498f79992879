"""What a person sees: the live display, tables, plans, the doctor's report. Figures and reports belong here."""
