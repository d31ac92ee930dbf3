"""`slipway serve`: which engine answers, the processes that do, and what is told of them."""
