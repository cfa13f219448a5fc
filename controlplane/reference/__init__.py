"""What the models say of themselves: the texts of their fields, and the JSON Schema of the document."""
