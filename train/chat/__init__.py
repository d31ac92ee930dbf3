"""`python -m train.chat`: a conversation with a model on a terminal, or line by line through pipes."""
