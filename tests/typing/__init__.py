"""What type checkers say of the API."""
