"""What programs are: types, symbolic dims, graphs of tensor ops, kernels, rules, and the texts of both IRs."""
