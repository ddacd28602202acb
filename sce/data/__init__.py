"""From files and recipes to encoded examples with known evidence."""
