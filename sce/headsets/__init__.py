"""Head sets as files: averaged into references, compared with each other, exchanged with tools."""
