"""A float file and the int8 file made from it in, why the second is worse out. Knows no store."""
