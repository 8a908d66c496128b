"""The three services and the operator command. A service never imports another."""
