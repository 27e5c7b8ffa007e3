"""Networks: encoders, heads, and a BatchNorm that spans processes."""
