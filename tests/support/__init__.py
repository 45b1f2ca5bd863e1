"""What tests share: real servers, waiting with a deadline, the key-leak check."""
