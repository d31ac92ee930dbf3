"""The chat page: NiceGUI on the server's own application, with no file from elsewhere."""
