"""Made cases: a generator learns a store's training cases, draws others, and what it draws is held against them."""
