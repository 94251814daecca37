"""A network's boxes and maps held against what experts marked and where they looked, case by case."""
